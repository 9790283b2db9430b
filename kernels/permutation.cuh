// The keyed Feistel permutation of [0, n): see permutation.py.

// keys = blocks 0 and 1 of the stream
__device__ inline void round_keys(unsigned long long seed, Stream stream, unsigned long long id,
                                  unsigned int* keys) {  // [8]
    for (unsigned int block = 0; block < 2; ++block) {
        const Words words = philox(seed, stream, id, block);
        keys[4 * block] = words.x;
        keys[4 * block + 1] = words.y;
        keys[4 * block + 2] = words.z;
        keys[4 * block + 3] = words.w;
    }
}

__device__ inline long long permute(long long index, long long n,
                                    int half_bits,              // smallest h >= 1 with 4^h >= n
                                    const unsigned int* keys) {  // [8]
    const unsigned int mask = half_bits == 32 ? 0xFFFFFFFFu : (1u << half_bits) - 1u;
    unsigned long long result = (unsigned long long)index;
    do {
        unsigned int left = (unsigned int)(result >> half_bits), right = (unsigned int)result & mask;
        for (int round = 0; round < 8; ++round) {
            unsigned int f = (right ^ keys[round]) * 0x9E3779B1u;
            f ^= f >> 15;
            f *= 0x85EBCA77u;
            f ^= f >> 13;
            const unsigned int mixed = left ^ (f & mask);
            left = right;
            right = mixed;
        }
        result = ((unsigned long long)left << half_bits) | right;
    } while (result >= (unsigned long long)n);
    return (long long)result;
}
