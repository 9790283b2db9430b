// Philox4x32-10 as a counter: see philox.py, which says what each stream is for.
// Source: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011.

enum Stream { TRIMAP = 0, ALPHA_PIXEL = 1, ALPHA_BLOCK = 2, PAIRING = 4 };

struct Words {
    unsigned int x, y, z, w;
};

// The four words of one block of (seed, stream, id).
__device__ inline Words philox(unsigned long long seed, Stream stream, unsigned long long id, unsigned int block) {
    unsigned int k0 = (unsigned int)seed, k1 = (unsigned int)(seed >> 32);
    Words c = {block, (unsigned int)stream, (unsigned int)id, (unsigned int)(id >> 32)};
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned long long p0 = 0xD2511F53ull * c.x, p1 = 0xCD9E8D57ull * c.z;
        c = {(unsigned int)(p1 >> 32) ^ c.y ^ k0, (unsigned int)p1, (unsigned int)(p0 >> 32) ^ c.w ^ k1, (unsigned int)p0};
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

// Word i of four, chosen without an address, so that the words stay in registers.
__device__ inline unsigned int word(const Words& words, int i) {
    return i == 0 ? words.x : i == 1 ? words.y : i == 2 ? words.z : words.w;
}
