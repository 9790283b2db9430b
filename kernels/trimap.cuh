// Cells of a trimap: which one a pixel lies in, and the state of each; see trimap.py.

enum State { BACKGROUND = 0, UNKNOWN = 1, FOREGROUND = 2 };

struct Cells {
    unsigned int side, columns, total, half_bits, unknown, foreground;
};

// unknown if pi(index) < unknown; foreground if pi(index) < unknown + foreground; else background
__device__ inline State cell_state(unsigned int index,  // row * columns + column
                                   const Cells& cells,
                                   const unsigned int* keys) {  // [8], stream TRIMAP
    const unsigned int position = permute(index, cells.total, (int)cells.half_bits, keys);
    return position < cells.unknown ? UNKNOWN : position < cells.unknown + cells.foreground ? FOREGROUND : BACKGROUND;
}

__device__ inline unsigned int cell_of(unsigned int pixel, unsigned int width, const Cells& cells) {
    return pixel / width / cells.side * cells.columns + pixel % width / cells.side;
}

// The cells that the pixels of a thread block lie in, drawn once and shared: an entry for each cell from `first` on,
// or, where these are too many or the pixels of a thread go on in the next row, for each pixel of the block.
struct Table {
    bool by_pixel;
    unsigned int first, count;
};

__device__ inline Table table_of(unsigned int start, unsigned int end,  // the block's pixels, end not included
                                 unsigned int width, const Cells& cells, unsigned int room,
                                 unsigned int pixels_per_thread) {
    const unsigned int first = start / width / cells.side * cells.columns;
    const unsigned int count = ((end - 1) / width / cells.side + 1) * cells.columns - first;
    if (count > room || width % pixels_per_thread) return {true, start, end - start};
    return {false, first, count};
}

// Where a thread is among the entries of the table, pixel after pixel.
struct Place {
    unsigned int entry, across, side;  // across: column within the cell
};

__device__ inline Place place_of(unsigned int pixel, unsigned int width, const Cells& cells, const Table& table) {
    if (table.by_pixel) return {pixel - table.first, 0, 1};
    return {cell_of(pixel, width, cells) - table.first, pixel % width % cells.side, cells.side};
}

__device__ inline void step(Place& place) {
    if (++place.across == place.side) {
        place.across = 0;
        ++place.entry;
    }
}
