// synthesize: a thread block works on consecutive pixels of one sample, a thread on those that
// fill 16 bytes of a plane.
// synthesize.py states the formula; the order of operations here is the same.

const unsigned int PIXELS_PER_THREAD = 16 / sizeof(Number), PIXELS_PER_WORD = 4 / sizeof(Number), CHANNELS = 6;
const unsigned int PIXELS = THREADS * PIXELS_PER_THREAD;  // of a thread block

typedef Packed<4> Values;                      // of a thread's pixels, in one plane
typedef Packed<PIXELS_PER_THREAD / 4> Bytes;  // likewise

// Random words of a thread block, each thread drawing four: noise for its pixels, keys for its cells, the pairing.
const unsigned int NOISE = PIXELS / 16, KEYS = NOISE, SHIFT = KEYS + 2, DRAWN = SHIFT + 1;

__device__ inline Words draw(unsigned int i, unsigned long long seed, const long long* ids, unsigned int sample,
                             unsigned int start) {
    const Stream stream = i < KEYS ? ALPHA_PIXEL : i < SHIFT ? TRIMAP : PAIRING;
    return philox(seed, stream, ids[i < SHIFT ? sample : 0], i < KEYS ? start / 16 + i : i < SHIFT ? i - KEYS : 0);
}

// byte / 255, rounded as a division is: test_cuda_source.py compares all 256
__device__ inline float alpha_of_byte(float byte) {
    const float inverse = 1.0f / 255.0f, rest = (float)(1.0 / 255.0 - inverse);
    return __fmaf_rn(byte, inverse, byte * rest);
}

// A colour matrix from bytes to 0..1; a row is read in one access.
struct Color {
    struct alignas(16) { float values[4]; } rows[3];
};

// Channel c of pixel k of a thread after the colour matrix of its view, 0..1.
__device__ inline float colored(const Bytes rgb[3], unsigned int k, const Color& color, unsigned int c) {
    float value[3];
#pragma unroll
    for (unsigned int i = 0; i < 3; ++i) {
        const unsigned int at = 3 * k + i;
        value[i] = float_of_byte(from_byte(rgb[at / PIXELS_PER_THREAD], at % PIXELS_PER_THREAD));
    }
    const float* const row = color.rows[c].values;
    return fma_saturated(row[2], value[2], __fmaf_rn(row[1], value[1], row[0] * value[0]));
}

// Word w of the plane that is 1 where the state is c, else 0: a state is used as the number of a byte among those of
// the value for each state. `places` holds a byte for each pixel: state in the high bits, 4 + state in the low.
__device__ inline unsigned int one_hot(const Bytes& places, unsigned int w, unsigned int c) {
    Number one;
    store(1.0f, &one);
    const unsigned int bits = bits_of(one) >> 8 * (sizeof(Number) - 2);  // below are zeros
    const unsigned int high = bits >> 8 << 8 * c, low = (bits & 0xFFu) << 8 * c;
    const unsigned int place = sizeof(Number) == 2 ? places.words[w / 2] >> 16 * (w % 2)
                                                   : from_byte(places, w) << 8 | 0x33u;  // byte 3 is always zero
    return __byte_perm(high, low, place);
}

// A byte of `second` where `others` has its bits set, else of `first`.
__device__ inline Bytes choose(unsigned long long others, unsigned int first, unsigned int second) {
    Bytes chosen;
#pragma unroll
    for (unsigned int i = 0; i < PIXELS_PER_THREAD / 4; ++i) {
        const unsigned int mask = (unsigned int)(others >> 32 * i);
        chosen.words[i] = (second * 0x01010101u & mask) | (first * 0x01010101u & ~mask);
    }
    return chosen;
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
               unsigned long long seed, long long samples, unsigned long long by_samples,
               long long pixels_of_sample, long long width, unsigned long long by_width,
               long long side, unsigned long long by_side,  // of a cell in pixels
               long long columns, long long total, long long half_bits, long long unknown, long long foreground,
               long long block_alpha,    // 1: an alpha for each cell; 0: for each pixel
               long long channels_last,  // 1: input is [N, H, W, 6]
               long long aligned) {      // 1: every vector starts at a multiple of its size
    const float scale[3] = {1.0f / 0.229f, 1.0f / 0.224f, 1.0f / 0.225f};           // 1 / std
    const float shift[3] = {-0.485f / 0.229f, -0.456f / 0.224f, -0.406f / 0.225f};  // -mean / std
    __shared__ Words drawn[DRAWN];
    __shared__ unsigned int background;
    __shared__ Color colors[2];                                      // of foreground and background
    alignas(8) __shared__ Byte states[PIXELS], levels[PIXELS];  // of the table
    __shared__ Values staged[CHANNELS * THREADS];                   // of the input, for channels_last

    // The same part of all samples at about the same time: a view is read twice, the second time from the L2 cache.
    const Divisor all = divisor_of(samples, by_samples);
    const unsigned int tile = blockIdx.x / all, sample = blockIdx.x - tile * all.value;
    const unsigned int pixels = (unsigned int)pixels_of_sample;
    const unsigned int start = tile * PIXELS, end = min(start + PIXELS, pixels);
    const unsigned int first = start + threadIdx.x * PIXELS_PER_THREAD;
    const unsigned int count = first < end ? min(end - first, PIXELS_PER_THREAD) : 0;
    const long long before = pixels_of_sample * sample;  // pixels of the samples before
    const Cells cells = {divisor_of(width, by_width), divisor_of(side, by_side), (unsigned int)columns,
                         (unsigned int)total, (unsigned int)half_bits, (unsigned int)unknown, (unsigned int)foreground};

    if (threadIdx.x < DRAWN) {
        const Words words = draw(threadIdx.x, seed, ids, sample, start);
        drawn[threadIdx.x] = words;
        if (threadIdx.x == SHIFT) {
            // s = 1 + word0 % (N - 1), of the batch's first id
            const unsigned int next = sample + 1 + words.x % (all.value - 1);
            background = next < all.value ? next : next - all.value;
        }
    }
    __syncthreads();
    // A thread's pixels must lie in one row, and in no more than two cells.
    const bool by_pixel = cells.width.value % PIXELS_PER_THREAD || cells.side.value < PIXELS_PER_THREAD - 1;
    const Table table = table_of(start, end, cells, PIXELS - 1, by_pixel);
    for (unsigned int i = threadIdx.x; i < table.count; i += THREADS) {
        const unsigned int cell = cell_of(i, table, cells);
        const State state = cell_state(cell, cells, (const unsigned int*)&drawn[KEYS]);
        states[i] = (Byte)state;
        levels[i] = (Byte)alpha_value(state, block_alpha ? noise_byte(seed, ALPHA_BLOCK, ids[sample], cell) : 0);
    }
    const unsigned int at = THREADS - 1 - threadIdx.x;  // other threads than those with a cell, where there are few
    if (at < 18) {
        const unsigned int i = at % 9, view = at < 9 ? sample : background;
        colors[at / 9].rows[i / 3].values[i % 3] =
            (color ? color[9ll * view + i] : i % 4 ? 0.0f : 1.0f) * (1.0f / 255.0f);
    }
    __syncthreads();
    if (first == 0) pairing[sample] = background;

    Values planes[CHANNELS], alphas, contrasts;
    if (count) {
        Bytes fg[3], bg[3], state, level;
        for (unsigned int i = 0; i < 3; ++i) {
            const unsigned int at = i * PIXELS_PER_THREAD, left = 3 * count > at ? 3 * count - at : 0;
            fg[i] = load_packed<PIXELS_PER_THREAD / 4>(views + 3 * (before + first) + at, left, aligned);
            bg[i] = load_packed<PIXELS_PER_THREAD / 4>(views + 3 * (pixels_of_sample * background + first) + at, left, aligned);
        }
        if (table.by_pixel) {  // also behind the end, where nothing is stored
            state = ((const Bytes*)states)[threadIdx.x];
            level = ((const Bytes*)levels)[threadIdx.x];
        } else {  // `left` pixels in one cell, the others in the next
            const Place place = place_of(first, cells);
            const unsigned int entry = place.cell - table.first, left = cells.side.value - place.across;
            const unsigned long long others = left < PIXELS_PER_THREAD ? ~0ull << 8 * left : 0;
            state = choose(others, states[entry], states[entry + 1]);
            level = choose(others, levels[entry], levels[entry + 1]);
        }
        Bytes places;
#pragma unroll
        for (unsigned int i = 0; i < PIXELS_PER_THREAD / 4; ++i) {
            const unsigned int noise = ((const Bytes*)drawn)[threadIdx.x].words[i];
            if (!block_alpha) level.words[i] |= noise & (state.words[i] & 0x01010101u) * 0xFFu;  // UNKNOWN alone is odd
            places.words[i] = state.words[i] * 0x11u + 0x04040404u;
        }
#pragma unroll
        for (unsigned int w = 0; w < 4; ++w) {
            float a[PIXELS_PER_WORD], sum[PIXELS_PER_WORD], image[3][PIXELS_PER_WORD];
#pragma unroll
            for (unsigned int i = 0; i < PIXELS_PER_WORD; ++i) {
                const unsigned int k = w * PIXELS_PER_WORD + i;
                a[i] = alpha_of_byte(float_of_byte(from_byte(level, k)));
#pragma unroll
                for (unsigned int c = 0; c < 3; ++c) {
                    const float f = colored(fg, k, colors[0], c), b = colored(bg, k, colors[1], c), difference = f - b;
                    // input_c = (B + a (F - B) - mean_c) / std_c
                    image[c][i] = __fmaf_rn(__fmaf_rn(a[i], difference, b), scale[c], shift[c]);
                    // contrast = sum_c |F - B| / std_c
                    sum[i] = c ? __fmaf_rn(fabsf(difference), scale[c], sum[i]) : fabsf(difference) * scale[c];
                }
            }
            alphas.words[w] = pack(a, Number());
            contrasts.words[w] = pack(sum, Number());
#pragma unroll
            for (unsigned int c = 0; c < 3; ++c) {
                planes[c].words[w] = pack(image[c], Number());
                planes[3 + c].words[w] = one_hot(places, w, c);
            }
        }
        store_packed(alphas, alpha + before + first, count, aligned);
        store_packed(contrasts, contrast + before + first, count, aligned);
        store_packed(state, trimap + before + first, count, aligned);
    }
    if (!channels_last) {
        for (unsigned int c = 0; c < CHANNELS && count; ++c)
            store_packed(planes[c], input + CHANNELS * before + (long long)c * pixels + first, count, aligned);
        return;
    }
    // A thread's pixels lie side by side, but 16-byte accesses of neighbouring threads would lie apart: put them
    // together in shared memory, then copy in order.
#pragma unroll
    for (unsigned int i = 0; i < 4 * CHANNELS; ++i) {
        const unsigned int k = i * PIXELS_PER_WORD / CHANNELS, c = i * PIXELS_PER_WORD % CHANNELS;
        staged[CHANNELS * threadIdx.x + i / 4].words[i % 4] =
            PIXELS_PER_WORD == 1 ? planes[c].words[k]
                                 : __byte_perm(planes[c].words[k / 2], planes[c + 1].words[k / 2], k % 2 ? 0x7632 : 0x5410);
    }
    __syncthreads();
    Number* const out = input + CHANNELS * (before + start);
    const unsigned int length = CHANNELS * (end - start);
    for (unsigned int i = threadIdx.x; i * PIXELS_PER_THREAD < length; i += THREADS)
        store_packed(staged[i], out + i * PIXELS_PER_THREAD, length - i * PIXELS_PER_THREAD, aligned);
}
