// Consecutive elements that one thread works on, moved in one access where their address allows it.

template <typename T, unsigned int length>
struct alignas(sizeof(T) * length) Vec {
    T values[length];
};

// The first `count` elements at an address; the rest of the vector is 0.
template <typename V, typename T>
__device__ inline V load_vec(const T* from, unsigned int count,
                             bool aligned) {  // the address is a multiple of the vector's size, and all of it is there
    if (aligned) return *(const V*)from;
    V vec = {};
#pragma unroll
    for (unsigned int k = 0; k < sizeof(V) / sizeof(T); ++k)
        if (k < count) vec.values[k] = from[k];
    return vec;
}

template <typename T, unsigned int length>
__device__ inline void store_vec(const Vec<T, length>& vec, T* to, unsigned int count, bool aligned) {
    if (aligned) {
        *(Vec<T, length>*)to = vec;
        return;
    }
#pragma unroll
    for (unsigned int k = 0; k < length; ++k)
        if (k < count) to[k] = vec.values[k];
}

// The same in words of 32 bits, where small elements lie side by side, the first in the low bits: they take fewer
// registers than one for each, and fewer instructions where a word is worked on as a whole.
template <unsigned int length>
struct alignas(4 * length) Packed {
    unsigned int words[length];
};

template <unsigned int length>
__device__ inline Packed<length> load_packed(const Byte* from, unsigned int count, bool aligned) {
    if (aligned) return *(const Packed<length>*)from;
    Packed<length> packed = {};
#pragma unroll
    for (unsigned int k = 0; k < 4 * length; ++k)
        if (k < count) packed.words[k / 4] |= (unsigned int)from[k] << 8 * (k % 4);
    return packed;
}

// Past the cache as far as possible: what is written is not read again here, and would push out what is.
__device__ inline void store_streaming(const Packed<1>& packed, Packed<1>* to) {
    __stcs(&to->words[0], packed.words[0]);
}

__device__ inline void store_streaming(const Packed<2>& packed, Packed<2>* to) {
    __stcs((uint2*)to, make_uint2(packed.words[0], packed.words[1]));
}

__device__ inline void store_streaming(const Packed<4>& packed, Packed<4>* to) {
    __stcs((uint4*)to, make_uint4(packed.words[0], packed.words[1], packed.words[2], packed.words[3]));
}

template <unsigned int length, typename T>
__device__ inline void store_packed(const Packed<length>& packed, T* to, unsigned int count, bool aligned) {
    if (aligned) {
        store_streaming(packed, (Packed<length>*)to);
        return;
    }
    const unsigned int per_word = 4 / sizeof(T);
#pragma unroll
    for (unsigned int k = 0; k < length * per_word; ++k)
        if (k < count) store_bits(packed.words[k / per_word] >> 8 * sizeof(T) * (k % per_word), to + k);
}

// Byte k in the lowest place, below others.
template <unsigned int length>
__device__ inline unsigned int from_byte(const Packed<length>& packed, unsigned int k) {
    return packed.words[k / 4] >> 8 * (k % 4);
}

// Which pixels of a sample a thread works on, where a sample takes `tiles` thread blocks.
struct Run {
    long long sample, first;
    unsigned int count;  // 0: the sample ends before
};

template <unsigned int length>
__device__ inline Run run_of_thread(long long tiles, long long pixels) {
    const unsigned int all = (unsigned int)tiles;  // a division of 32 bits is shorter
    const long long sample = blockIdx.x / all;
    const long long first = ((long long)(blockIdx.x % all) * blockDim.x + threadIdx.x) * length;
    return {sample, first, first < pixels ? (unsigned int)min(pixels - first, (long long)length) : 0};
}
