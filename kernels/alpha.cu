// random_alpha: one thread fills 16 consecutive pixels of a sample, a thread block works on one sample.

extern "C" __global__ void random_alpha(const unsigned char* __restrict__ trimap,  // [N, H, W]
                                        const long long* __restrict__ ids,         // [N]
                                        unsigned char* __restrict__ alpha,         // [N, H, W]
                                        unsigned long long seed,
                                        long long tiles,  // thread blocks of a sample
                                        long long height, long long width,
                                        long long cell,  // side in pixels
                                        long long by_cell) {  // 1: a byte for each cell; 0: for each pixel
    const long long sample = blockIdx.x / tiles, pixels = height * width, columns = (width + cell - 1) / cell;
    const long long first = 16 * (blockIdx.x % tiles * blockDim.x + threadIdx.x), end = min(first + 16, pixels);
    Noise noise = {-1};
    for (long long p = first; p < end; ++p) {
        const long long i = by_cell ? p / width / cell * columns + p % width / cell : p;
        const unsigned int byte = noise_byte(noise, seed, by_cell ? ALPHA_BLOCK : ALPHA_PIXEL, ids[sample], i);
        alpha[sample * pixels + p] = alpha_value(trimap[sample * pixels + p], byte);
    }
}
