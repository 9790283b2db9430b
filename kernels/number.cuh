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

// The lowest byte of a word; from C++ the compiler takes it out first, in two more instructions.
__device__ inline float float_of_byte(unsigned int word) {
    float x;
    asm("cvt.rn.f32.u8 %0, %1;" : "=f"(x) : "r"(word));
    return x;
}

// x * y + z, clamped to 0..1, in one instruction
__device__ inline float fma_saturated(float x, float y, float z) {
    float result;
    asm("fma.rn.ftz.sat.f32 %0, %1, %2, %3;" : "=f"(result) : "f"(x), "f"(y), "f"(z));
    return result;
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

// Element from its bits, which are the low ones of a word.
__device__ inline void store_bits(unsigned int bits, Byte* out) { *out = (Byte)bits; }
__device__ inline void store_bits(unsigned int bits, Half* out) { out->bits = (unsigned short)bits; }
__device__ inline void store_bits(unsigned int bits, BFloat* out) { out->bits = (unsigned short)bits; }
__device__ inline void store_bits(unsigned int bits, float* out) { *out = __uint_as_float(bits); }

__device__ inline unsigned int bits_of(Half x) { return x.bits; }
__device__ inline unsigned int bits_of(BFloat x) { return x.bits; }
__device__ inline unsigned int bits_of(float x) { return __float_as_uint(x); }

// A word of elements, each rounded as by store(): one float, or two 16-bit numbers with the first in the low bits.
__device__ inline unsigned int pack(const float x[1], float) { return __float_as_uint(x[0]); }

template <typename Number16>
__device__ inline unsigned int pack(const float x[2], Number16) {
    Number16 low, high;
    store(x[0], &low);
    store(x[1], &high);
    return low.bits | (unsigned int)high.bits << 16;
}

#if __CUDA_ARCH__ >= 800
__device__ inline unsigned int pack(const float x[2], Half) {
    unsigned int word;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(x[1]), "f"(x[0]));
    return word;
}

__device__ inline unsigned int pack(const float x[2], BFloat) {
    unsigned int word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(x[1]), "f"(x[0]));
    return word;
}
#endif
