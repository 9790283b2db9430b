"""Colour profiles for the tests, written out as ICC.1 lays them out, with the numbers of published spaces."""

import struct

# Columns: X, Y, Z of red, green and blue, adapted to D50, as the profiles of these spaces have them.
P3 = [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]
ADOBE = [[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]]
SRGB = [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
WHITE = (0.9642, 1, 0.8249)
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def fixed(*numbers):
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))


def icc(space, tags, kind=b"mntr", connection=b"XYZ ", version=0x02400000):
    """A profile, as ICC.1 lays it out: the header, the table of the tags, the tags."""
    at = 128 + 4 + 12 * len(tags)
    table, content = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", at + len(content), len(value))
        content += value + bytes(-len(value) % 4)
    header = struct.pack(">I4xI", at + len(content), version) + kind + space + connection
    header = header.ljust(36, b"\0") + b"acsp"
    return header.ljust(68, b"\0") + fixed(*WHITE).ljust(60, b"\0") + table + content


def curve(gamma):
    """A curve: a gamma, or the five numbers of one with a straight beginning."""
    if isinstance(gamma, tuple):
        return b"para" + struct.pack(">4xHH", 3, 0) + fixed(*gamma)
    return b"curv" + struct.pack(">4xIH", 1, round(gamma * 256))


def of_colors(matrix, gamma):
    tags = {b"wtpt": b"XYZ \0\0\0\0" + fixed(*WHITE)}
    for i, letter in enumerate(b"rgb"):
        tags[bytes([letter]) + b"XYZ"] = b"XYZ \0\0\0\0" + fixed(*(row[i] for row in matrix))
        tags[bytes([letter]) + b"TRC"] = curve(gamma)
    return icc(b"RGB ", tags, version=0x04000000 if isinstance(gamma, tuple) else 0x02400000)


def of_grey(gamma):
    return icc(b"GRAY", {b"wtpt": b"XYZ \0\0\0\0" + fixed(*WHITE), b"kTRC": curve(gamma)})


def of_inks():
    """Inks of which each alone takes away lightness in proportion."""
    ramp = bytes(range(256))
    lab = b"".join(bytes([0 if inks else 255, 128, 128]) for inks in range(16))
    table = b"mft1" + struct.pack(">4xBBBx", 4, 3, 2) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + ramp * 4 + lab + ramp * 3
    return icc(b"CMYK", {b"wtpt": b"XYZ \0\0\0\0" + fixed(*WHITE), b"A2B0": table}, b"prtr", b"Lab ")
