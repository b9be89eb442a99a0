/* A moving gradient: odd frames are painted straight into shared memory, even ones copied there. example [STREAM [FRAMES]] */
#define _POSIX_C_SOURCE 200809L
#include <ringgear.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { WIDTH = 640, HEIGHT = 360 };
static uint8_t copy[HEIGHT * WIDTH * 3];

static void paint(uint8_t *rows, size_t stride, long shift) {
    for (size_t y = 0; y < HEIGHT; y++)
        for (size_t x = 0; x < WIDTH * 3; x++)
            rows[y * stride + x] = (uint8_t)(x / 3 + y + (size_t)shift * (1 + x % 3));
}

int main(int argc, char **argv) {
    long frames = argc > 2 ? atol(argv[2]) : 300;
    struct timespec interval = {0, 1000000000 / 30};
    ringgear_producer *producer;
    ringgear_frame frame;
    ringgear_account account;
    ringgear_options options;
    ringgear_options_init(&options, sizeof options);
    options.stream = argc > 1 ? argv[1] : "door";
    options.format = "bgr24";
    options.width = WIDTH;
    options.height = HEIGHT;
    options.client = "example.c";
    int code = ringgear_open(&options, &producer);
    for (long n = 0; code >= 0 && n < frames; n++, nanosleep(&interval, NULL)) {
        uint64_t captured = ringgear_now();
        if (n % 2 == 0) {
            paint(copy, WIDTH * 3, n);
            code = ringgear_write(producer, copy, sizeof copy, captured);
        } else if ((code = ringgear_begin(producer, &frame)) == RINGGEAR_OK) {
            paint(frame.planes[0].data, frame.planes[0].stride, n);
            code = ringgear_commit(producer, captured);
        }
    }
    if (code < 0) {
        fprintf(stderr, "example: %s\n", ringgear_last_error(producer));
        ringgear_close(producer, NULL);
        return 1;
    }
    code = ringgear_close(producer, &account);
    printf("used %llu, superseded %llu, late %llu\n", (unsigned long long)account.used,
           (unsigned long long)account.superseded, (unsigned long long)account.late);
    return code < 0;
}
