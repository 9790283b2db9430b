// Random alpha bytes: see alpha.py. Byte i of a stream is byte i % 16 of block i / 16, low bytes of a word first.

// The block drawn last; sixteen neighbours share it, so that it is rarely drawn anew.
struct Noise {
    long long block;  // -1: none yet
    Words words;
};

__device__ inline unsigned int noise_byte(Noise& noise, unsigned long long seed, Stream stream, unsigned long long id,
                                          long long i) {
    if (i / 16 != noise.block) {
        noise.block = i / 16;
        noise.words = philox(seed, stream, id, (unsigned int)noise.block);
    }
    const int word = (int)(i % 16) / 4, shift = 8 * (int)(i % 4);
    const Words& words = noise.words;
    return ((word == 0 ? words.x : word == 1 ? words.y : word == 2 ? words.z : words.w) >> shift) & 0xFFu;
}

__device__ inline unsigned int alpha_value(unsigned int state, unsigned int byte) {
    return state == UNKNOWN ? byte : state == FOREGROUND ? 255u : 0u;
}
