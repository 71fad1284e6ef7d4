"""The reason of an error of Keras, in a sentence."""


def shorten(error: BaseException, most: int = 300) -> str:
    """Return the first reason of an error, without the dump of a config.

    Args:
        error: The error.
        most: Greatest number of characters. Defaults to 300.
    """
    while error.__cause__ is not None and "deserialized properly" in str(error):
        error = error.__cause__
    text = str(error)
    if "Exception encountered:" in text:
        text = text.rpartition("Exception encountered:")[2]
    for dump in ("Full object config:", "config={", "Target variable:"):
        text = text.partition(dump)[0]
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[:most]}…"
