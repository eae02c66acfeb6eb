"""From the collected study to tables, figures and the page. Never imports torch."""
