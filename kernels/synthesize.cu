// synthesize: a thread block works on consecutive pixels of one sample, a thread on those that
// fill 16 bytes of a plane.
// synthesize.py states the formula; the order of operations here is the same.

const unsigned int PIXELS_PER_THREAD = 16 / sizeof(Number), CHANNELS = 6;

typedef Vec<Number, PIXELS_PER_THREAD> Values;
typedef Vec<Byte, PIXELS_PER_THREAD> Bytes;

// What the pixels of a cell have in common.
struct alignas(4 * sizeof(Number)) Cell {
    Number one_hot[3];  // background, unknown, foreground
    Byte state;
    Byte alpha;  // but in mode "pixel" each pixel of an unknown cell has its own
};

__device__ inline Cell draw_cell(unsigned int index, const Cells& cells, const unsigned int* keys, bool block_alpha,
                                 unsigned long long seed, unsigned long long id) {
    Cell cell;
    cell.state = cell_state(index, cells, keys);
    cell.alpha = alpha_value(cell.state, block_alpha ? noise_byte(seed, ALPHA_BLOCK, id, index) : 0);
    for (int c = 0; c < 3; ++c) store(cell.state == c ? 1.0f : 0.0f, &cell.one_hot[c]);
    return cell;
}

// byte / 255, rounded as a division is: test_cuda_source.py compares all 256
__device__ inline float alpha_of_byte(unsigned int byte) {
    const float inverse = 1.0f / 255.0f, nearly = (float)byte * inverse;
    return __fmaf_rn(__fmaf_rn(-255.0f, nearly, (float)byte), inverse, nearly);
}

struct Color {
    float rows[3][3];
};

// A colour matrix of [N, 3, 3], or the identity, from bytes to 0..1.
__device__ inline Color color_of(const float* color, unsigned int view) {
    Color result;
#pragma unroll
    for (unsigned int i = 0; i < 9; ++i)
        result.rows[i / 3][i % 3] = (color ? color[9ll * view + i] : i % 4 ? 0.0f : 1.0f) * (1.0f / 255.0f);
    return result;
}

// Channel c of pixel k of a thread after the colour matrix of its view, 0..1.
__device__ inline float colored(const Bytes rgb[3], unsigned int k, const Color& color, unsigned int c) {
    float value[3];
#pragma unroll
    for (unsigned int i = 0; i < 3; ++i) {
        const unsigned int at = 3 * k + i;
        value[i] = rgb[at / PIXELS_PER_THREAD].values[at % PIXELS_PER_THREAD];
    }
    const float* const row = color.rows[c];
    return __saturatef(__fmaf_rn(row[2], value[2], __fmaf_rn(row[1], value[1], row[0] * value[0])));
}

extern "C" __global__ void __launch_bounds__(THREADS, 4)  // 4 blocks at a time: at most 128 registers
    synthesize(const Byte* __restrict__ views,     // [N, H, W, 3]
               const long long* __restrict__ ids,  // [N]
               const float* __restrict__ color,    // [N, 3, 3] or null
               Number* __restrict__ input,         // [N, 6, H, W] or [N, H, W, 6]
               Number* __restrict__ alpha,         // [N, 1, H, W]
               Number* __restrict__ contrast,      // [N, 1, H, W]
               Byte* __restrict__ trimap,          // [N, 1, H, W]
               long long* __restrict__ pairing,    // [N]
               unsigned long long seed, long long samples, long long height, long long width,
               long long side,  // of a cell in pixels
               long long columns, long long total, long long half_bits, long long unknown, long long foreground,
               long long block_alpha,      // 1: an alpha for each cell; 0: for each pixel
               long long channels_last) {  // 1: input is [N, H, W, 6]
    const float scale[3] = {1.0f / 0.229f, 1.0f / 0.224f, 1.0f / 0.225f};           // 1 / std
    const float shift[3] = {-0.485f / 0.229f, -0.456f / 0.224f, -0.406f / 0.225f};  // -mean / std
    __shared__ unsigned int keys[8], background;
    __shared__ Cell table[THREADS * PIXELS_PER_THREAD];
    __shared__ Values staged[CHANNELS * THREADS];  // of the input, for channels_last

    // The same part of all samples at about the same time: a view is read twice, the second time from the L2 cache.
    const unsigned int sample = blockIdx.x % (unsigned int)samples, pixels = (unsigned int)(height * width);
    const unsigned int start = blockIdx.x / (unsigned int)samples * blockDim.x * PIXELS_PER_THREAD;
    const unsigned int end = min(start + blockDim.x * PIXELS_PER_THREAD, pixels);
    const unsigned int first = start + threadIdx.x * PIXELS_PER_THREAD;
    const unsigned int count = first < end ? min(end - first, PIXELS_PER_THREAD) : 0;
    const long long before = (long long)pixels * sample;  // pixels of the samples before
    const bool aligned = pixels % PIXELS_PER_THREAD == 0 &&
                         ((unsigned long long)views | (unsigned long long)trimap) % PIXELS_PER_THREAD == 0 &&
                         ((unsigned long long)input | (unsigned long long)alpha | (unsigned long long)contrast) % 16 == 0;
    const unsigned long long id = ids[sample];
    const Cells cells = {(unsigned int)side,      (unsigned int)columns, (unsigned int)total,
                         (unsigned int)half_bits, (unsigned int)unknown, (unsigned int)foreground};

    if (threadIdx.x < 2) draw_keys(seed, TRIMAP, id, threadIdx.x, keys);
    if (threadIdx.x == blockDim.x - 1) {  // in another warp: at the same time
        // s = 1 + word0 % (N - 1), of the batch's first id
        const unsigned int s = 1 + philox(seed, PAIRING, ids[0], 0).x % (unsigned int)(samples - 1);
        background = (sample + s) % (unsigned int)samples;
    }
    __syncthreads();
    const Table range =
        table_of(start, end, (unsigned int)width, cells, blockDim.x * PIXELS_PER_THREAD, PIXELS_PER_THREAD);
    for (unsigned int i = threadIdx.x; i < range.count; i += blockDim.x) {
        const unsigned int index = range.first + i;
        const unsigned int cell = range.by_pixel ? cell_of(index, (unsigned int)width, cells) : index;
        table[i] = draw_cell(cell, cells, keys, block_alpha, seed, id);
    }
    __syncthreads();
    if (first == 0) pairing[sample] = background;

    Values planes[CHANNELS], alphas, contrasts;
    Bytes states;
    if (count) {
        Bytes fg[3], bg[3];
        for (unsigned int i = 0; i < 3; ++i) {
            const unsigned int at = i * PIXELS_PER_THREAD, left = 3 * count > at ? 3 * count - at : 0;
            fg[i] = load_vec<Bytes>(views + 3 * (before + first) + at, left, aligned);
            bg[i] = load_vec<Bytes>(views + 3 * ((long long)pixels * background + first) + at, left, aligned);
        }
        const Color over = color_of(color, sample), under = color_of(color, background);
        const Words noise = philox(seed, ALPHA_PIXEL, id, first / 16);
        Place place = place_of(first, (unsigned int)width, cells, range);
#pragma unroll
        for (unsigned int k = 0; k < PIXELS_PER_THREAD; ++k) {
            const Cell cell = table[place.entry];  // also where k >= count, of which nothing is stored
            step(place);
            const bool noisy = cell.state == UNKNOWN && !block_alpha;
            const unsigned int byte = word(noise, first % 16 / 4 + k / 4) >> 8 * (k % 4) & 0xFFu;
            const float a = alpha_of_byte(noisy ? byte : cell.alpha);
            float sum = 0.0f;
#pragma unroll
            for (unsigned int c = 0; c < 3; ++c) {
                const float f = colored(fg, k, over, c), b = colored(bg, k, under, c), difference = f - b;
                // input_c = (B + a (F - B) - mean_c) / std_c
                store(__fmaf_rn(__fmaf_rn(a, difference, b), scale[c], shift[c]), &planes[c].values[k]);
                // contrast = sum_c |F - B| / std_c
                sum = c ? __fmaf_rn(fabsf(difference), scale[c], sum) : fabsf(difference) * scale[c];
            }
            store(a, &alphas.values[k]);
            store(sum, &contrasts.values[k]);
#pragma unroll
            for (unsigned int c = 0; c < 3; ++c) planes[3 + c].values[k] = cell.one_hot[c];
            states.values[k] = cell.state;
        }
        store_vec(alphas, alpha + before + first, count, aligned);
        store_vec(contrasts, contrast + before + first, count, aligned);
        store_vec(states, trimap + before + first, count, aligned);
    }
    if (!channels_last) {
        for (unsigned int c = 0; c < CHANNELS && count; ++c)
            store_vec(planes[c], input + CHANNELS * before + (long long)c * pixels + first, count, aligned);
        return;
    }
    // A thread's pixels lie side by side, but 16-byte accesses of neighbouring threads would lie apart: put them
    // together in shared memory, then copy in order.
    for (unsigned int i = 0; i < CHANNELS; ++i)
        for (unsigned int k = 0; k < PIXELS_PER_THREAD; ++k)
            staged[CHANNELS * threadIdx.x + i].values[k] =
                planes[(i * PIXELS_PER_THREAD + k) % CHANNELS].values[(i * PIXELS_PER_THREAD + k) / CHANNELS];
    __syncthreads();
    Number* const out = input + CHANNELS * (before + start);
    const unsigned int length = CHANNELS * (end - start);
    for (unsigned int i = threadIdx.x; i * PIXELS_PER_THREAD < length; i += blockDim.x)
        store_vec(staged[i], out + i * PIXELS_PER_THREAD, length - i * PIXELS_PER_THREAD, aligned);
}
