"""Damaged copies of valid files."""


def mutated(content, random):
    """Damage the content of a file: bits flipped, bytes replaced, cut, left out, doubled or put in.

    Args:
        content: bytes.
        random: numpy.random.Generator.

    Returns:
        Other bytes, rarely the same.
    """
    content = bytearray(content)
    kind = random.integers(6)
    begin, end = sorted(random.integers(0, len(content), 2))
    if kind == 0:
        content[begin] ^= 1 << random.integers(8)
    elif kind == 1:
        content[begin : begin + 4] = random.bytes(4)
    elif kind == 2:
        del content[begin:]
    elif kind == 3:
        del content[begin:end]
    elif kind == 4:
        content[begin:begin] = content[begin:end]
    else:
        content[begin:begin] = random.bytes(random.integers(1, 50))
    return bytes(content)
