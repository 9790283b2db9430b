// Division by a number that the host knows, as a multiplication: see division.py. A GPU has no instruction for it.

struct Divisor {
    unsigned int value;
    unsigned int multiplier, shift;
};

__device__ inline Divisor divisor_of(long long value, unsigned long long reciprocal) {
    return {(unsigned int)value, (unsigned int)reciprocal, (unsigned int)(reciprocal >> 32)};
}

// n / divisor for n < 2^31
__device__ inline unsigned int operator/(unsigned int n, const Divisor& divisor) {
    return (__umulhi(n, divisor.multiplier) + n) >> divisor.shift;
}
