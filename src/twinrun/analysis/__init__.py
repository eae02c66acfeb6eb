"""From collected runs to tables, figures and the report. Never imports torch."""
