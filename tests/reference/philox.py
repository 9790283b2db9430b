"""Philox4x32-10 and the bytes of a stream, from the text of the contract, in Python's integers."""

LOW = 0xFFFFFFFF


def plain_philox(seed, stream, ident, block):
    """Draw the four words of one block."""
    c, k = [block, stream, ident & LOW, ident >> 32], [seed & LOW, seed >> 32]
    for _ in range(10):
        p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [p1 >> 32 ^ c[1] ^ k[0], p1 & LOW, p0 >> 32 ^ c[3] ^ k[1], p0 & LOW]
        k = [(k[0] + 0x9E3779B9) & LOW, (k[1] + 0xBB67AE85) & LOW]
    return c


def plain_bytes(seed, stream, ident, count):
    """Draw bytes of a stream: byte i is byte i % 16 of block i // 16, low bytes of a word first."""
    out = []
    for block in range(-(-count // 16)):
        for word in plain_philox(seed, stream, ident, block):
            out += word.to_bytes(4, "little")
    return out[:count]
