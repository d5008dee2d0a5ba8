"""Units of signals: their names, as recordings and streams spell them, and sizes."""

SIZES = {
    **{"V": (1.0, "V"), "mV": (1e-3, "V"), "µV": (1e-6, "V"), "nV": (1e-9, "V")},
    **{"T": (1.0, "T"), "pT": (1e-12, "T"), "fT": (1e-15, "T")},
    **{"T/m": (1.0, "T/m"), "fT/m": (1e-15, "T/m"), "fT/cm": (1e-13, "T/m")},
}
"""Factor to the SI unit, and that unit, by name."""
# written out: microvolt and microvolts are µV
WORDS = {
    f"{prefix}{word}{plural}": f"{letter}{unit}"
    for word, unit in (("volt", "V"), ("tesla", "T"))
    for prefix, letter in {
        "": "",
        "milli": "m",
        "micro": "µ",
        "nano": "n",
        "pico": "p",
        "femto": "f",
    }.items()
    for plural in ("", "s")
}
# casefold also turns the micro sign into the Greek letter mu
SPELLINGS = WORDS | {unit.casefold(): unit for unit in SIZES} | {"uv": "µV"}


def name_unit(spelling: str) -> str:
    """Give a unit's usual name, µV for uV or microvolts; what is not known stays as it
    is.
    """
    text = spelling.strip()
    return SPELLINGS.get(text.casefold(), text)
