// random_trimap: one thread fills one cell, a thread block works on one sample.

extern "C" __global__ void random_trimap(const long long* __restrict__ ids,   // [N]
                                         unsigned char* __restrict__ trimap,  // [N, H, W]
                                         unsigned long long seed,
                                         long long tiles,  // thread blocks of a sample
                                         long long height, long long width,
                                         long long cell,  // side in pixels
                                         long long columns, long long cells, long long half_bits, long long unknown,
                                         long long foreground) {
    __shared__ unsigned int keys[8];
    const long long sample = blockIdx.x / tiles;
    if (threadIdx.x == 0) round_keys(seed, TRIMAP, ids[sample], keys);
    __syncthreads();

    const long long index = blockIdx.x % tiles * blockDim.x + threadIdx.x;
    if (index >= cells) return;
    const State state = cell_state(index, cells, (int)half_bits, unknown, foreground, keys);

    // cells at the right and lower border are cut
    const long long top = index / columns * cell, left = index % columns * cell;
    const long long bottom = min(top + cell, height), right = min(left + cell, width);
    for (long long y = top; y < bottom; ++y)
        for (long long x = left; x < right; ++x) trimap[(sample * height + y) * width + x] = state;
}
