/* A moving gradient, painted straight into shared memory: example [STREAM [FRAMES]] */
#define _POSIX_C_SOURCE 200809L
#include <ringgear.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void paint(const ringgear_plane *plane, long shift) {
    for (size_t y = 0; y < plane->rows; y++)
        for (size_t x = 0; x < plane->row_bytes; x++)
            plane->data[y * plane->stride + x] = (uint8_t)(x / 3 + y + (size_t)shift * (1 + x % 3));
}

int main(int argc, char **argv) {
    long frames = argc > 2 ? atol(argv[2]) : 300;
    struct timespec interval = {0, 1000000000 / 30};
    ringgear_producer *producer;
    ringgear_frame frame;
    ringgear_account end = {0, 0, 0};
    ringgear_options options;
    ringgear_options_init(&options, sizeof options);
    options.stream = argc > 1 ? argv[1] : "door";
    options.format = "bgr24";
    options.width = 640;
    options.height = 360;
    int code = ringgear_open(&options, &producer);
    for (long n = 0; code >= 0 && n < frames; n++, nanosleep(&interval, NULL)) {
        /* Pixels that lie elsewhere already go by ringgear_write instead. Not OK and not negative: the daemon is away. */
        if ((code = ringgear_begin(producer, &frame)) == RINGGEAR_OK) {
            uint64_t captured = ringgear_now();
            paint(&frame.planes[0], n);
            code = ringgear_commit(producer, captured);
        }
    }
    if (code < 0)
        fprintf(stderr, "example: %s\n", ringgear_last_error(producer));
    ringgear_close(producer, &end);
    printf("used %ld, superseded %ld, late %ld\n", (long)end.used, (long)end.superseded, (long)end.late);
    return code < 0;
}
