// synthesize: a thread block works on consecutive pixels of one sample, a thread on those that
// fill 16 bytes of a plane.
// synthesize.py states the formula; the order of operations here is the same.

const unsigned int PIXELS_PER_WORD = 4 / sizeof(Number), PIXELS_PER_THREAD = 4 * PIXELS_PER_WORD;
const unsigned int PIXELS = THREADS * PIXELS_PER_THREAD;  // of a thread block
const unsigned int CHANNELS = 6;

typedef Packed<4> Values;                     // of a thread's pixels, in one plane
typedef Packed<PIXELS_PER_THREAD / 4> Bytes;  // likewise

// Random words of a thread block, four to a thread: noise for its pixels, then keys for its cells, then the pairing.
const unsigned int KEYS = PIXELS / 16, PAIR = KEYS + 2, DRAWN = PAIR + 1;

__device__ inline Words draw(unsigned int i, unsigned long long seed, const long long* ids, unsigned int sample,
                             unsigned int start) {  // first pixel of the block
    // One call, not three: the threads of a warp go through it together.
    const Stream stream = i < KEYS ? ALPHA_PIXEL : i < PAIR ? TRIMAP : PAIRING;
    const unsigned int block = i < KEYS ? start / 16 + i : i < PAIR ? i - KEYS : 0;
    return philox(seed, stream, ids[i < PAIR ? sample : 0], block);
}

// A colour matrix from bytes to 0..1; a row is read in one access.
struct Color {
    struct alignas(16) {
        float values[3];
    } rows[3];
};

// A byte for each pixel: `first` for `left` of them, `second` for the others.
__device__ inline Bytes spread(unsigned int first, unsigned int second, unsigned int left) {
    const unsigned long long others = left < PIXELS_PER_THREAD ? ~0ull << 8 * left : 0;
    Bytes bytes;
#pragma unroll
    for (unsigned int i = 0; i < PIXELS_PER_THREAD / 4; ++i) {
        const unsigned int mask = (unsigned int)(others >> 32 * i);
        bytes.words[i] = (first * 0x01010101u & ~mask) | (second * 0x01010101u & mask);
    }
    return bytes;
}

// Channel c of pixel k after the colour matrix of its view, 0..1.
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

// byte / 255, rounded as a division is: test_cuda_source.py compares all 256
__device__ inline float alpha_of_byte(float byte) {
    const float inverse = 1.0f / 255.0f, rest = (float)(1.0 / 255.0 - inverse);
    return __fmaf_rn(byte, inverse, byte * rest);
}

// Word w of the plane that is 1 where the state is c and else 0. A byte permutation takes its bytes by number: here by
// the state, out of the upper byte of the value for each state (numbers 0 to 2) and the lower one (4 to 6).
__device__ inline unsigned int one_hot(const Bytes& states, unsigned int w, unsigned int c) {
    Number one;
    store(1.0f, &one);
    const unsigned int bits = bits_of(one) >> 8 * (sizeof(Number) - 2);  // of a float the upper half: the rest is 0
    const unsigned int upper = bits >> 8 << 8 * c, lower = (bits & 0xFFu) << 8 * c;
    // of the bytes of each pixel: 4 bits for the lower one, 4 for the upper one
    const unsigned int numbers = states.words[w * PIXELS_PER_WORD / 4] * 0x11u + 0x04040404u;
    const unsigned int own = numbers >> 8 * (w * PIXELS_PER_WORD % 4);
    return __byte_perm(upper, lower, sizeof(Number) == 2 ? own : own << 8 | 0x33u);  // number 3 is 0
}

// What a thread computes.
struct Pixels {
    Values planes[CHANNELS], alpha, contrast;
};

__device__ inline Pixels compose(const Bytes fg[3], const Bytes bg[3], const Color& over, const Color& under,
                                 const Bytes& states, const Bytes& levels) {
    const float scale[3] = {1.0f / 0.229f, 1.0f / 0.224f, 1.0f / 0.225f};           // 1 / std
    const float shift[3] = {-0.485f / 0.229f, -0.456f / 0.224f, -0.406f / 0.225f};  // -mean / std
    Pixels pixels;
#pragma unroll
    for (unsigned int w = 0; w < 4; ++w) {
        float a[PIXELS_PER_WORD], sum[PIXELS_PER_WORD], image[3][PIXELS_PER_WORD];
#pragma unroll
        for (unsigned int i = 0; i < PIXELS_PER_WORD; ++i) {
            const unsigned int k = w * PIXELS_PER_WORD + i;
            a[i] = alpha_of_byte(float_of_byte(from_byte(levels, k)));
#pragma unroll
            for (unsigned int c = 0; c < 3; ++c) {
                const float f = colored(fg, k, over, c), b = colored(bg, k, under, c), difference = f - b;
                // input_c = (B + a (F - B) - mean_c) / std_c
                image[c][i] = __fmaf_rn(__fmaf_rn(a[i], difference, b), scale[c], shift[c]);
                // contrast = sum_c |F - B| / std_c
                sum[i] = c ? __fmaf_rn(fabsf(difference), scale[c], sum[i]) : fabsf(difference) * scale[c];
            }
        }
        pixels.alpha.words[w] = pack(a, Number());
        pixels.contrast.words[w] = pack(sum, Number());
#pragma unroll
        for (unsigned int c = 0; c < 3; ++c) {
            pixels.planes[c].words[w] = pack(image[c], Number());
            pixels.planes[3 + c].words[w] = one_hot(states, w, c);
        }
    }
    return pixels;
}

// Word i of a thread's pixels with their channels side by side.
__device__ inline unsigned int interleaved(const Values planes[CHANNELS], unsigned int i) {
    const unsigned int k = i * PIXELS_PER_WORD / CHANNELS, c = i * PIXELS_PER_WORD % CHANNELS;
    if (PIXELS_PER_WORD == 1) return planes[c].words[k];
    return __byte_perm(planes[c].words[k / 2], planes[c + 1].words[k / 2], k % 2 ? 0x7632 : 0x5410);  // halves k % 2
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
    alignas(16) __shared__ Words drawn[DRAWN];
    __shared__ unsigned int background;
    __shared__ Color colors[2];                                         // of foreground and background
    alignas(8) __shared__ Byte states[PIXELS], noise_of_cells[PIXELS];  // of the entries of the table
    __shared__ Values staged[CHANNELS * THREADS];                       // of the input, for channels_last

    // The same part of all samples at about the same time: a view is read twice, the second time from the L2 cache.
    const Divisor all = divisor_of(samples, by_samples);
    const unsigned int tile = blockIdx.x / all, sample = blockIdx.x - tile * all.value;
    const unsigned int pixels = (unsigned int)pixels_of_sample;
    const unsigned int start = tile * PIXELS, end = min(start + PIXELS, pixels);
    const unsigned int first = start + threadIdx.x * PIXELS_PER_THREAD;
    const unsigned int count = first < end ? min(end - first, PIXELS_PER_THREAD) : 0;
    const long long before = (long long)pixels * sample;  // pixels of the samples before
    const Cells cells = {divisor_of(width, by_width), divisor_of(side, by_side), (unsigned int)columns,
                         (unsigned int)total, (unsigned int)half_bits, (unsigned int)unknown, (unsigned int)foreground};

    if (threadIdx.x < DRAWN) {
        const Words words = drawn[threadIdx.x] = draw(threadIdx.x, seed, ids, sample, start);
        if (threadIdx.x == PAIR) {
            // s = 1 + word0 % (N - 1), of the batch's first id
            const unsigned int other = sample + 1 + words.x % (all.value - 1);
            background = other < all.value ? other : other - all.value;
        }
    }
    __syncthreads();
    if (first == 0) pairing[sample] = background;

    const Byte* const over = views + 3 * (before + first);
    const Byte* const under = views + 3 * ((long long)pixels * background + first);
    Bytes fg[3], bg[3];  // on their way while the table is made
#pragma unroll
    for (unsigned int i = 0; i < 3 && count; ++i) {
        const unsigned int at = i * PIXELS_PER_THREAD, left = 3 * count > at ? 3 * count - at : 0;
        fg[i] = load_packed<PIXELS_PER_THREAD / 4>(over + at, left, aligned);
        bg[i] = load_packed<PIXELS_PER_THREAD / 4>(under + at, left, aligned);
    }
    const unsigned int from_end = THREADS - 1 - threadIdx.x;  // threads without a cell, where there are few cells
    if (from_end < 18) {
        const unsigned int i = from_end % 9, view = from_end < 9 ? sample : background;
        const float value = color ? color[9ll * view + i] : i % 4 ? 0.0f : 1.0f;  // without: the identity
        colors[from_end / 9].rows[i / 3].values[i % 3] = value * (1.0f / 255.0f);
    }
    // Of a table by cell a thread reads two entries: its pixels must lie in one row, and in no more than two cells.
    const bool by_pixel = cells.width.value % PIXELS_PER_THREAD || cells.side.value < PIXELS_PER_THREAD - 1;
    const Table table = table_of(start, end, cells, PIXELS - 1, by_pixel);
    draw_states(table, cells, (const unsigned int*)&drawn[KEYS], states);
    if (block_alpha)
        for (unsigned int i = threadIdx.x; i < table.count; i += THREADS)
            noise_of_cells[i] = (Byte)noise_byte(seed, ALPHA_BLOCK, ids[sample], cell_of(i, table, cells));
    __syncthreads();

    Pixels own;
    if (count) {
        const Place place = place_of(first, cells);
        const unsigned int entry = place.cell - table.first, left = cells.side.value - place.across;
        const auto of_pixels = [&](const Byte* of_table) {
            if (table.by_pixel) return ((const Bytes*)of_table)[threadIdx.x];
            return spread(of_table[entry], of_table[entry + 1], left);
        };
        const Bytes state = of_pixels(states);
        const Bytes noise = block_alpha ? of_pixels(noise_of_cells) : ((const Bytes*)drawn)[threadIdx.x];
        Bytes level;  // alpha: noise where the state is 1, UNKNOWN; 255 where it is 2, FOREGROUND
#pragma unroll
        for (unsigned int i = 0; i < PIXELS_PER_THREAD / 4; ++i)
            level.words[i] = (noise.words[i] & (state.words[i] & 0x01010101u) * 0xFFu) |
                             (state.words[i] >> 1 & 0x01010101u) * 0xFFu;
        own = compose(fg, bg, colors[0], colors[1], state, level);
        store_packed(own.alpha, alpha + before + first, count, aligned);
        store_packed(own.contrast, contrast + before + first, count, aligned);
        store_packed(state, trimap + before + first, count, aligned);
    }
    if (!channels_last) {
        for (unsigned int c = 0; c < CHANNELS && count; ++c)
            store_packed(own.planes[c], input + CHANNELS * before + (long long)c * pixels + first, count, aligned);
        return;
    }
    // A thread's pixels lie side by side, but 16-byte accesses of neighbouring threads would lie apart: put them
    // together in shared memory, then copy in order.
#pragma unroll
    for (unsigned int i = 0; i < 4 * CHANNELS; ++i)
        staged[CHANNELS * threadIdx.x + i / 4].words[i % 4] = interleaved(own.planes, i);
    __syncthreads();
    Number* const out = input + CHANNELS * (before + start);
    const unsigned int length = CHANNELS * (end - start);
    for (unsigned int i = threadIdx.x; i * PIXELS_PER_THREAD < length; i += THREADS)
        store_packed(staged[i], out + i * PIXELS_PER_THREAD, length - i * PIXELS_PER_THREAD, aligned);
}
