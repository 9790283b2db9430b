"""A picture of bars with their spread, drawn by OpenCV."""

import cv2
import numpy as np

WIDTH, ROW, LABEL, VALUE, EDGE = 960, 44, 300, 250, 16  # pixels
INK, SPREAD = (40, 40, 40), (90, 90, 90)
COLOURS = {True: (60, 150, 240), False: (190, 190, 190)}  # BGR: ours, and what it is measured against


def draw_bars(title, rows):
    """Draw horizontal bars from zero, each with a line from its smallest to its largest value.

    Args:
        title: One line above them.
        rows: Of (label, median, smallest, largest, text behind the bar, whether it is ours).

    Returns:
        uint8 [H, W, 3] BGR.
    """
    picture = np.full((EDGE * 2 + ROW * (len(rows) + 1), WIDTH, 3), 255, np.uint8)
    write(picture, title, EDGE, EDGE + ROW // 2, 0.62)
    longest = WIDTH - LABEL - VALUE
    per_pixel = max(row[3] for row in rows) / longest
    for i, (label, median, smallest, largest, text, ours) in enumerate(rows):
        top = EDGE + ROW * (i + 1)
        middle = top + ROW // 2
        write(picture, label, EDGE, middle + 6, 0.52)
        end, low, high = (LABEL + round(value / per_pixel) for value in (median, smallest, largest))
        cv2.rectangle(picture, (LABEL, top + 8), (end, top + ROW - 8), COLOURS[ours], cv2.FILLED)
        cv2.line(picture, (low, middle), (high, middle), SPREAD, 2, cv2.LINE_AA)
        write(picture, text, high + 10, middle + 6, 0.5)
    return picture


def write(picture, text, x, y, scale):
    cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, INK, 1, cv2.LINE_AA)
