"""Names of languages as documents carry them."""


def base_language(name: str) -> str:
    """The language without script or region, in lower case: `zh-Hant` and `zh_TW` are `zh`."""
    return name.lower().replace("_", "-").split("-")[0]
