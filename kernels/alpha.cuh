// Random alpha bytes: see alpha.py. Byte i of a stream is byte i % 16 of block i / 16, low bytes of a word first.

// One byte, where its neighbours are not needed.
__device__ inline unsigned int noise_byte(unsigned long long seed, Stream stream, unsigned long long id, unsigned int i) {
    return word(philox(seed, stream, id, i / 16), i % 16 / 4) >> 8 * (i % 4) & 0xFFu;
}

__device__ inline unsigned int alpha_value(unsigned int state, unsigned int byte) {
    return state == UNKNOWN ? byte : state == FOREGROUND ? 255u : 0u;
}
