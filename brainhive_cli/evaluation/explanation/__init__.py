"""Where, when and how reliably signals carry what was seen."""
