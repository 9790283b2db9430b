// composite: a thread works on consecutive pixels of a sample that fill 16 bytes of a plane, in all
// three channels.

const unsigned int PIXELS_PER_THREAD = 16 / sizeof(Number);

typedef Vec<Number, PIXELS_PER_THREAD> Values;

// C = a F + (1 - a) B
template <typename T>
__device__ inline T blend(T a, T f, T b) {
    return a * f + (1 - a) * b;
}

// Of 8-bit numbers, where 255 is one: rounded to nearest. There is no tie, because 255 is odd.
__device__ inline unsigned int blend(unsigned int a, unsigned int f, unsigned int b) {
    return (2 * (a * f + (255 - a) * b) + 255) / 510;
}

extern "C" __global__ void composite(const Number* __restrict__ fg,     // [N, 3, H, W]
                                     const Number* __restrict__ bg,     // [N, 3, H, W]
                                     const Number* __restrict__ alpha,  // [N, channels, H, W]
                                     Number* __restrict__ out,          // [N, 3, H, W]
                                     long long tiles,                   // thread blocks of a sample
                                     long long pixels,                  // H * W
                                     long long channels,                // of alpha: 1 or 3
                                     long long aligned) {               // 1: every Vec starts at a multiple of 16 bytes
    const auto [sample, first, count] = run_of_thread<PIXELS_PER_THREAD>(tiles, pixels);
    if (!count) return;
    Values a;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        if (c < channels) a = load_vec<Values>(alpha + (sample * channels + c) * pixels + first, count, aligned);
        const long long at = (sample * 3 + c) * pixels + first;
        const Values f = load_vec<Values>(fg + at, count, aligned), b = load_vec<Values>(bg + at, count, aligned);
        Values result;
#pragma unroll
        for (unsigned int k = 0; k < PIXELS_PER_THREAD; ++k)
            store(blend(load(a.values[k]), load(f.values[k]), load(b.values[k])), &result.values[k]);
        store_vec(result, out + at, count, aligned);
    }
}
