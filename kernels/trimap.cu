// random_trimap: a thread block works on consecutive pixels of one sample, a thread on 16 of them.

const unsigned int PIXELS_PER_THREAD = 16;

extern "C" __global__ void random_trimap(const long long* __restrict__ ids,   // [N]
                                         Byte* __restrict__ trimap,           // [N, H, W]
                                         unsigned long long seed,
                                         long long tiles,  // thread blocks of a sample
                                         long long height, long long width,
                                         long long side,  // of a cell in pixels
                                         long long columns, long long total, long long half_bits, long long unknown,
                                         long long foreground) {
    __shared__ unsigned int keys[8];
    __shared__ Byte table[THREADS * PIXELS_PER_THREAD];
    const unsigned int sample = blockIdx.x / (unsigned int)tiles, pixels = (unsigned int)(height * width);
    const unsigned int start = blockIdx.x % (unsigned int)tiles * blockDim.x * PIXELS_PER_THREAD;
    const unsigned int end = min(start + blockDim.x * PIXELS_PER_THREAD, pixels);
    const unsigned int first = start + threadIdx.x * PIXELS_PER_THREAD;
    const Cells cells = {(unsigned int)side,      (unsigned int)columns, (unsigned int)total,
                         (unsigned int)half_bits, (unsigned int)unknown, (unsigned int)foreground};
    if (threadIdx.x < 2) draw_keys(seed, TRIMAP, ids[sample], threadIdx.x, keys);
    __syncthreads();
    const Table range =
        table_of(start, end, (unsigned int)width, cells, blockDim.x * PIXELS_PER_THREAD, PIXELS_PER_THREAD);
    for (unsigned int i = threadIdx.x; i < range.count; i += blockDim.x) {
        const unsigned int index = range.first + i;
        const unsigned int cell = range.by_pixel ? cell_of(index, (unsigned int)width, cells) : index;
        table[i] = (Byte)cell_state(cell, cells, keys);
    }
    __syncthreads();
    if (first >= end) return;

    Vec<Byte, PIXELS_PER_THREAD> states;
    Place place = place_of(first, (unsigned int)width, cells, range);
#pragma unroll
    for (unsigned int k = 0; k < PIXELS_PER_THREAD; ++k) {
        states.values[k] = table[place.entry];  // also behind the end, where nothing is stored
        step(place);
    }
    store_vec(states, trimap + (long long)pixels * sample + first, end - first,
              pixels % PIXELS_PER_THREAD == 0 && (unsigned long long)trimap % PIXELS_PER_THREAD == 0);
}
