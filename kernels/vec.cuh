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
