// The keyed Feistel permutation of [0, n): see permutation.py.

// Half of the round keys, those of block 0 or 1: two threads draw all eight together.
__device__ inline void draw_keys(unsigned long long seed, Stream stream, unsigned long long id, unsigned int block,
                                 unsigned int* keys) {  // [8]
    const Words words = philox(seed, stream, id, block);
    for (int i = 0; i < 4; ++i) keys[4 * block + i] = word(words, i);
}

// One pass, from [0, 4^half_bits) to the same range; passes are repeated until the result is below n.
__device__ inline unsigned int feistel(unsigned int index,
                                       unsigned int half_bits,      // smallest h >= 1 with 4^h >= n
                                       const unsigned int* keys) {  // [8]
    const unsigned int mask = (1u << half_bits) - 1u;
    unsigned int left = index >> half_bits, right = index & mask;
#pragma unroll
    for (int round = 0; round < 8; ++round) {
        unsigned int f = (right ^ keys[round]) * 0x9E3779B1u;
        f ^= f >> 15;
        f *= 0x85EBCA77u;
        f ^= f >> 13;
        const unsigned int mixed = left ^ (f & mask);
        left = right;
        right = mixed;
    }
    return left << half_bits | right;
}
