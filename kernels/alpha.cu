// random_alpha: a thread block works on consecutive pixels of one sample, a thread on 16 of them: one Philox block.

const unsigned int PIXELS_PER_THREAD = 16;

typedef Vec<Byte, PIXELS_PER_THREAD> Bytes;

extern "C" __global__ void random_alpha(const Byte* __restrict__ trimap,    // [N, H, W]
                                        const long long* __restrict__ ids,  // [N]
                                        Byte* __restrict__ alpha,           // [N, H, W]
                                        unsigned long long seed,
                                        long long tiles, unsigned long long by_tiles,  // thread blocks of a sample
                                        long long pixels_of_sample, long long width, unsigned long long by_width,
                                        long long side, unsigned long long by_side,  // of a cell in pixels
                                        long long columns,
                                        long long block_alpha) {  // 1: a byte for each cell; 0: for each pixel
    const Divisor all = divisor_of(tiles, by_tiles);
    const unsigned int sample = blockIdx.x / all, pixels = (unsigned int)pixels_of_sample;
    const unsigned int first = ((blockIdx.x - sample * all.value) * THREADS + threadIdx.x) * PIXELS_PER_THREAD;
    if (first >= pixels) return;
    const unsigned int count = min(pixels - first, PIXELS_PER_THREAD);
    const bool aligned = pixels % PIXELS_PER_THREAD == 0 && (unsigned long long)trimap % PIXELS_PER_THREAD == 0;
    const unsigned long long id = ids[sample];
    const Cells cells = {divisor_of(width, by_width), divisor_of(side, by_side), (unsigned int)columns};

    const Words noise = philox(seed, ALPHA_PIXEL, id, first / 16);
    Bytes levels = load_vec<Bytes>(trimap + (long long)pixels * sample + first, count, aligned);
    unsigned int cell = 0, byte = 0;
#pragma unroll
    for (unsigned int k = 0; k < PIXELS_PER_THREAD; ++k) {
        if (!block_alpha) {
            byte = word(noise, k / 4) >> 8 * (k % 4) & 0xFFu;
        } else if (k == 0 || cell != place_of(first + k, cells).cell) {
            cell = place_of(first + k, cells).cell;
            byte = noise_byte(seed, ALPHA_BLOCK, id, cell);
        }
        levels.values[k] = (Byte)alpha_value(levels.values[k], byte);
    }
    store_vec(levels, alpha + (long long)pixels * sample + first, count, aligned);
}
