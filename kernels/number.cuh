// float16 and bfloat16 as their bits, so that no CUDA header has to be found at run time.
// load() gives the type that the arithmetic is done in, store() rounds once to nearest, ties to even.

struct Half {
    unsigned short bits;
};

struct BFloat {
    unsigned short bits;
};

__device__ inline double load(double x) { return x; }
__device__ inline float load(float x) { return x; }
__device__ inline float load(BFloat x) { return __uint_as_float((unsigned int)x.bits << 16); }

__device__ inline float load(Half x) {
    const unsigned int sign = (x.bits & 0x8000u) << 16, magnitude = x.bits & 0x7FFFu;
    if (magnitude >= 0x7C00u) return __uint_as_float(sign | 0x7F800000u | (magnitude << 13));  // infinity, NaN
    if (magnitude < 0x0400u) return (sign ? -1.0f : 1.0f) * (float)magnitude / 16777216.0f;     // subnormal
    return __uint_as_float(sign | ((magnitude << 13) + 0x38000000u));                          // exponent + 112
}

__device__ inline void store(double x, double* out) { *out = x; }
__device__ inline void store(float x, float* out) { *out = x; }

__device__ inline void store(float x, BFloat* out) {
    const unsigned int bits = __float_as_uint(x);
    const bool is_nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
    out->bits = is_nan ? 0x7FC0u : (unsigned short)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

__device__ inline void store(float x, Half* out) {
    const unsigned int bits = __float_as_uint(x), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
    unsigned int rounded;
    if (magnitude > 0x7F800000u)
        rounded = 0x7E00u;  // NaN
    else if (magnitude >= 0x47800000u)
        rounded = 0x7C00u;  // 65536 and more
    else if (magnitude < 0x38800000u)
        // below 2^-14: one unit of 0.5f is 2^-24, a unit of the subnormals, so that the addition rounds
        rounded = __float_as_uint(__uint_as_float(magnitude) + 0.5f) - 0x3F000000u;
    else
        rounded = (magnitude - 0x38000000u + 0x0FFFu + ((magnitude >> 13) & 1u)) >> 13;
    out->bits = (unsigned short)(sign | rounded);
}
