// random_trimap: a thread block works on consecutive pixels of one sample, a thread on 16 of them.

const unsigned int PIXELS_PER_THREAD = 16, PIXELS = THREADS * PIXELS_PER_THREAD;  // of a thread, of a block

extern "C" __global__ void random_trimap(const long long* __restrict__ ids,  // [N]
                                         Byte* __restrict__ trimap,          // [N, H, W]
                                         unsigned long long seed,
                                         long long tiles, unsigned long long by_tiles,  // thread blocks of a sample
                                         long long pixels_of_sample, long long width, unsigned long long by_width,
                                         long long side, unsigned long long by_side,  // of a cell in pixels
                                         long long columns, long long total, long long half_bits, long long unknown,
                                         long long foreground) {
    __shared__ unsigned int keys[8];
    __shared__ Byte states[PIXELS];
    const Divisor all = divisor_of(tiles, by_tiles);
    const unsigned int sample = blockIdx.x / all, pixels = (unsigned int)pixels_of_sample;
    const unsigned int start = (blockIdx.x - sample * all.value) * PIXELS, end = min(start + PIXELS, pixels);
    const unsigned int first = start + threadIdx.x * PIXELS_PER_THREAD;
    const Cells cells = {divisor_of(width, by_width), divisor_of(side, by_side), (unsigned int)columns,
                         (unsigned int)total, (unsigned int)half_bits, (unsigned int)unknown, (unsigned int)foreground};
    if (threadIdx.x < 2) draw_keys(seed, TRIMAP, ids[sample], threadIdx.x, keys);
    __syncthreads();
    const Table table = table_of(start, end, cells, PIXELS, width % PIXELS_PER_THREAD);
    draw_states(table, cells, keys, states);
    __syncthreads();
    if (first >= end) return;

    // An entry for each pixel is as a cell of one.
    const Place place = table.by_pixel ? Place{first, 0} : place_of(first, cells);
    const unsigned int across_all = table.by_pixel ? 1 : cells.side.value;
    unsigned int entry = place.cell - table.first, across = place.across;
    Vec<Byte, PIXELS_PER_THREAD> values;
#pragma unroll
    for (unsigned int k = 0; k < PIXELS_PER_THREAD; ++k) {
        values.values[k] = states[entry];  // also behind the end, where nothing is stored
        if (++across == across_all) {
            across = 0;
            ++entry;
        }
    }
    store_vec(values, trimap + (long long)pixels * sample + first, end - first,
              pixels % PIXELS_PER_THREAD == 0 && (unsigned long long)trimap % PIXELS_PER_THREAD == 0);
}
