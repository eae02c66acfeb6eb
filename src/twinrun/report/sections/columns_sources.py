"""How the columns of the tables by source read: heading, number format, meaning; plain text, no imports."""

SOURCE_COLUMNS: dict[str, tuple[str, str, str]] = {
    "quantity": ("Quantity", "", "SD of the main metric, churn, or distance of the heads at the last checkpoint"),
    "source": ("Source", "", "the arm: what alone is free"),
    "value": ("Value", ".4f", "pooled over the cells (SD), or mean over pairs and cells"),
    "value_low": ("From", ".4f", "lower end of its 95 % interval"),
    "value_high": ("To", ".4f", "upper end of its 95 % interval"),
    "over_all": ("/ all", ".2f", "divided by that of the arm all"),
    "over_all_low": ("From", ".2f", "lower end of the 95 % interval of that ratio"),
    "over_all_high": ("To", ".2f", "upper end of the 95 % interval of that ratio"),
    "over_nd": ("/ nd", ".2f", "divided by that of the arm nd"),
    "over_nd_low": ("From", ".2f", "lower end of the 95 % interval of that ratio"),
    "over_nd_high": ("To", ".2f", "upper end of the 95 % interval of that ratio"),
    "publication": ("Study", "", "who found it"),
    "found": ("Finding", "", "in words"),
    "found_low": ("From", ".4g", "smallest published value"),
    "found_high": ("To", ".4g", "largest published value"),
    "reference": ("Source", "", "where it is published"),
}
