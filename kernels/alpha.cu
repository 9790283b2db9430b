// random_alpha: a thread block works on consecutive pixels of one sample, a thread on 16 of them: one Philox block.

const unsigned int RUN = 16;

extern "C" __global__ void random_alpha(const Byte* __restrict__ trimap,    // [N, H, W]
                                        const long long* __restrict__ ids,  // [N]
                                        Byte* __restrict__ alpha,           // [N, H, W]
                                        unsigned long long seed,
                                        long long tiles,  // thread blocks of a sample
                                        long long height, long long width,
                                        long long side,  // of a cell in pixels
                                        long long columns,
                                        long long by_cell) {  // 1: a byte for each cell; 0: for each pixel
    const unsigned int sample = blockIdx.x / (unsigned int)tiles, pixels = (unsigned int)(height * width);
    const unsigned int first = (blockIdx.x % (unsigned int)tiles * blockDim.x + threadIdx.x) * RUN;
    if (first >= pixels) return;
    const unsigned int count = min(pixels - first, RUN);
    const bool aligned = pixels % RUN == 0 && (unsigned long long)trimap % RUN == 0;
    const unsigned long long id = ids[sample];
    const Cells cells = {(unsigned int)side, (unsigned int)columns};

    const Words noise = philox(seed, ALPHA_PIXEL, id, first / 16);
    Run<Byte, RUN> run = load_run<RUN>(trimap + (long long)pixels * sample + first, count, aligned);
    unsigned int cell = 0, byte = 0;
#pragma unroll
    for (unsigned int k = 0; k < RUN; ++k) {
        if (!by_cell) {
            byte = word(noise, k / 4) >> 8 * (k % 4) & 0xFFu;
        } else if (k == 0 || cell != cell_of(first + k, (unsigned int)width, cells)) {
            cell = cell_of(first + k, (unsigned int)width, cells);
            byte = noise_byte(seed, ALPHA_BLOCK, id, cell);
        }
        run.values[k] = (Byte)alpha_value(run.values[k], byte);
    }
    store_run(run, alpha + (long long)pixels * sample + first, count, aligned);
}
