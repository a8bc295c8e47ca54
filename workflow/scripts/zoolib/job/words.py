"""Names and numbers in words, for figures and messages."""


def in_words(name):
    """The name of a question or an answer as figures write it: `disk-edge-on` is Disk edge on."""
    words = str(name).replace("-", " ").replace("_", " ").replace("cant ", "can't ")
    return words[:1].upper() + words[1:]


def in_bytes(number):
    """A number of bytes in words, e.g. `103.7 GB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} bytes"
