"""Bytes and texts that are damaged at random, and how files are written."""

import itertools
import struct

# Numbers at the ends of what headers can hold.
EXTREMES = [
    struct.pack(form, number)
    for form, number in itertools.product(("<h", ">h", "<i", ">i", "<q", ">q"), (-1, 0, 1, 0x7FFF, -0x8000))
] + [b"\xff" * 8, b"\x7f" + b"\xff" * 3, b"\xff" * 3 + b"\x7f"]
CELLS = [
    "",
    "NaN",
    "inf",
    "-inf",
    "1e999",
    "-1",
    "9" * 40,
    "0.5",
    "\x00",
    '"',
    "'",
    "\u2028",
    "é",
    "=1+1",
    ",,,",
]
CELLS += ["!!python/object/apply:os.getcwd []", "&a [*a]", "{", "[", "- ", "\t", "null", "~", ".nan", "true"]


def damage(content, chance, others=()):
    """Damage bytes in one of many ways.

    Args:
        content: bytes of a valid file.
        chance: random.Random.
        others: bytes of files of other formats.
    """
    data, size = bytearray(content), len(content)
    begin, end = sorted(chance.randrange(size + 1) for _ in range(2))
    # The beginnings and ends of files have their headers.
    place = chance.choice(
        (
            chance.randrange(size),
            chance.randrange(min(size, 200)),
            size - 1 - chance.randrange(min(size, 200)),
        )
    )
    kind = chance.randrange(12)
    if kind == 0:
        data[place] ^= 1 << chance.randrange(8)
    elif kind == 1:
        for _ in range(chance.randrange(1, 9)):
            data[chance.randrange(size)] = chance.randrange(256)
    elif kind == 2:
        data[place] = chance.choice((0, 1, 127, 128, 255))
    elif kind == 3:
        del data[begin:]
    elif kind == 4:
        del data[place : place + chance.choice((1, 2, 4, 100, 4096))]
    elif kind == 5:
        data[begin:begin] = data[begin : min(end, begin + 65536)]
    elif kind == 6:
        data[place:place] = chance.randbytes(chance.randrange(1, 60))
    elif kind == 7:
        length = min((end - begin) // 2, 5000)
        first, second = bytes(data[begin : begin + length]), bytes(data[end - length : end])
        data[begin : begin + length], data[end - length : end] = second, first
    elif kind == 8:
        data[begin : min(end, begin + 5000)] = bytes(min(end, begin + 5000) - begin)
    elif kind == 9 and others:
        return chance.choice(others)
    elif kind == 10:
        extreme = chance.choice(EXTREMES)
        data[place : place + len(extreme)] = extreme
    else:
        data[begin:] = bytes(data[:begin])
    return bytes(data)


def damage_text(content, chance, others=()):
    """Damage a text: as bytes, or by its lines, cells, quotes and encoding."""
    if chance.random() < 0.3:
        return damage(content, chance, others)
    lines = content.decode().split("\n")
    row = chance.randrange(len(lines))
    cells = lines[row].split(",")
    kind = chance.randrange(10)
    if kind == 0:
        del lines[row : row + chance.randrange(1, 4)]
    elif kind == 1:
        cells[chance.randrange(len(cells))] = chance.choice(CELLS)
        lines[row] = ",".join(cells)
    elif kind == 2:
        middle = chance.randrange(len(lines[row]) + 1)
        lines[row] = lines[row][:middle] + chance.choice(CELLS) + lines[row][middle:]
    elif kind == 3:
        lines.insert(row, lines[chance.randrange(len(lines))])
    elif kind == 4:
        lines[row] = ",".join(cells[:-1]) if len(cells) > 1 else lines[row] + ","
    elif kind == 5:
        return "\n".join(lines).encode(chance.choice(("utf-16", "utf-8-sig", "utf-32", "cp037")))
    elif kind == 6:
        return "\n".join(lines).replace("\n", chance.choice(("\r", "\r\n", "\x0b", ""))).encode()
    elif kind == 7:
        lines[row] = lines[row][: len(lines[row]) // 2]
    elif kind == 8:
        head, mark, rest = lines[row].partition(":")
        lines[row] = f"{head}{mark} {chance.choice(CELLS)}" if mark else "  " + lines[row]
    else:
        chance.shuffle(lines)
    return "\n".join(lines).encode(errors="surrogatepass")


def write(files, folder):
    """Write files, {path: bytes}, into a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
