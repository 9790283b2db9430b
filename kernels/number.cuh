// Types of a tensor's elements: float16 and bfloat16 as their bits, so that no CUDA header has to be found at run time.
// load() gives the type that the arithmetic is done in, store() rounds once to nearest, ties to even.

typedef unsigned char Byte;

struct Half {
    unsigned short bits;
};

struct BFloat {
    unsigned short bits;
};

#ifdef __CUDA_ARCH__
__device__ inline float float_of_half(unsigned short bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}

__device__ inline unsigned short half_of_float(float x) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
#endif

__device__ inline unsigned int load(Byte x) { return x; }
__device__ inline double load(double x) { return x; }
__device__ inline float load(float x) { return x; }
__device__ inline float load(Half x) { return float_of_half(x.bits); }
__device__ inline float load(BFloat x) { return __uint_as_float((unsigned int)x.bits << 16); }

__device__ inline void store(unsigned int x, Byte* out) { *out = (Byte)x; }
__device__ inline void store(double x, double* out) { *out = x; }
__device__ inline void store(float x, float* out) { *out = x; }
__device__ inline void store(float x, Half* out) { out->bits = half_of_float(x); }

__device__ inline void store(float x, BFloat* out) {
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out->bits) : "f"(x));
#else
    const unsigned int bits = __float_as_uint(x);
    const bool is_nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
    out->bits = is_nan ? 0x7FFFu : (unsigned short)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
#endif
}
