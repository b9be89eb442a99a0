/* A producer's life, told on stdout for the test that kills its daemon: C99 and C++11. */
#include <ringgear.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 320, HEIGHT = 180, STRIDE = 400, LUMA = 200 };

/* Rows with dark padding, which must not be seen. */
static uint8_t luma[HEIGHT * STRIDE];
static uint8_t chroma[HEIGHT / 2 * STRIDE];
static uint8_t packed[WIDTH * HEIGHT * 3 / 2];

#define HOLD(condition) hold((condition), #condition, __LINE__)

static ringgear_producer *producer;

static void hold(int holds, const char *condition, int line) {
    if (!holds) {
        printf("line %d: %s does not hold; %s\n", line, condition, ringgear_last_error(producer));
        exit(3);
    }
}

static void fill(uint8_t *rows, size_t stride, size_t count, int value) {
    for (size_t row = 0; row < count; row++)
        memset(rows + row * stride, value, WIDTH);
}

static ringgear_counters counters(void) {
    ringgear_counters now;
    HOLD(ringgear_get_counters(producer, &now, sizeof now) == RINGGEAR_OK);
    return now;
}

static void refuse_nonsense(ringgear_options *options) {
    HOLD(ringgear_open(NULL, &producer) == RINGGEAR_E_ARGUMENT);
    HOLD(ringgear_open(options, NULL) == RINGGEAR_E_ARGUMENT);
    options->format = "mauve";
    HOLD(ringgear_open(options, &producer) == RINGGEAR_E_FORMAT && producer == NULL);
    HOLD(strstr(ringgear_last_error(NULL), "mauve") != NULL);
    options->format = "\xff";
    HOLD(ringgear_open(options, &producer) == RINGGEAR_E_ARGUMENT);
    options->format = "nv12";
    options->stream = "gate";
    HOLD(ringgear_open(options, &producer) == RINGGEAR_E_UNKNOWN_STREAM);
    HOLD(!ringgear_can_retry(RINGGEAR_E_UNKNOWN_STREAM) && ringgear_can_retry(RINGGEAR_E_BUSY));
    options->stream = "cam";
    options->struct_size = 8;
    HOLD(ringgear_open(options, &producer) == RINGGEAR_E_ARGUMENT);
    options->struct_size = sizeof *options;
    options->strides[2] = 64;
    HOLD(ringgear_open(options, &producer) == RINGGEAR_E_FORMAT);
    options->strides[2] = 0;
    HOLD(ringgear_write(NULL, packed, sizeof packed, 0) == RINGGEAR_E_ARGUMENT);
    HOLD(ringgear_close(NULL, NULL) == RINGGEAR_OK);
}

static void refuse_disorder(void) {
    const void *planes[2] = {luma, NULL};
    size_t strides[2] = {STRIDE, STRIDE};
    ringgear_frame frame;
    HOLD(ringgear_commit(producer, 0) == RINGGEAR_E_ORDER);
    HOLD(ringgear_abandon(producer) == RINGGEAR_E_ORDER);
    HOLD(ringgear_write(producer, packed, sizeof packed - 1, 0) == RINGGEAR_E_ARGUMENT);
    HOLD(ringgear_write_planes(producer, planes, strides, 2, 0) == RINGGEAR_E_ARGUMENT);
    HOLD(ringgear_write_planes(producer, planes, strides, 1, 0) == RINGGEAR_E_ARGUMENT);
    planes[1] = chroma;
    strides[1] = WIDTH - 1;
    HOLD(ringgear_write_planes(producer, planes, strides, 2, 0) == RINGGEAR_E_ARGUMENT);
    HOLD(ringgear_begin(producer, NULL) == RINGGEAR_E_ARGUMENT);
    HOLD(ringgear_begin(producer, &frame) == RINGGEAR_OK);
    HOLD(frame.number == 0 && frame.plane_count == 2 && frame.planes[2].data == NULL);
    HOLD(frame.planes[0].data == frame.data && frame.planes[0].stride == 384);
    HOLD(frame.planes[1].data == frame.data + 384 * HEIGHT && frame.planes[1].rows == HEIGHT / 2);
    HOLD(frame.size == 384 * HEIGHT * 3 / 2 && frame.planes[0].row_bytes == WIDTH);
    HOLD(ringgear_begin(producer, &frame) == RINGGEAR_E_ORDER);
    HOLD(ringgear_write(producer, packed, sizeof packed, 0) == RINGGEAR_E_ORDER);
    HOLD(ringgear_check(producer) == RINGGEAR_E_ORDER);
    HOLD(counters().committed == 0 && counters().sessions == 1 && counters().connected == 1);
    HOLD(ringgear_abandon(producer) == RINGGEAR_OK);
    HOLD(ringgear_commit(producer, 0) == RINGGEAR_E_ORDER && counters().committed == 0);
}

/* Feeds one frame in one of the three ways. */
static int feed(int way) {
    const void *planes[2] = {luma, chroma};
    const size_t strides[2] = {STRIDE, STRIDE};
    ringgear_frame frame;
    int code;
    if (way % 3 == 0)
        return ringgear_write(producer, packed, sizeof packed, ringgear_now());
    if (way % 3 == 1)
        return ringgear_write_planes(producer, planes, strides, 2, 0);
    code = ringgear_begin(producer, &frame);
    if (code != RINGGEAR_OK)
        return code;
    fill(frame.planes[0].data, frame.planes[0].stride, HEIGHT, LUMA);
    fill(frame.planes[1].data, frame.planes[1].stride, HEIGHT / 2, 128);
    return ringgear_commit(producer, ringgear_now());
}

int main(void) {
    ringgear_options options;
    ringgear_account account;
    uint64_t committed;
    int code, way = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    HOLD(ringgear_abi() == RINGGEAR_ABI);
    fill(luma, STRIDE, HEIGHT, LUMA);
    fill(chroma, STRIDE, HEIGHT / 2, 128);
    fill(packed, WIDTH, HEIGHT, LUMA);
    fill(packed + WIDTH * HEIGHT, WIDTH, HEIGHT / 2, 128);
    ringgear_options_init(&options, sizeof options);
    options.stream = "cam";
    options.width = WIDTH;
    options.height = HEIGHT;
    refuse_nonsense(&options);
    options.strides[0] = 384;
    options.strides[1] = 384;
    HOLD(ringgear_open(&options, &producer) == RINGGEAR_OK);
    refuse_disorder();
    for (code = 0; counters().sessions == 1; way++) {
        int next = feed(way);
        HOLD(next >= 0);
        if (way == 30)
            printf("feeding\n");
        if (next == RINGGEAR_DROPPED && code == RINGGEAR_OK)
            printf("away: %s\n", ringgear_last_error(producer));
        code = next;
        for (uint64_t until = ringgear_now() + 10000000; ringgear_now() < until;) {
        }
    }
    committed = counters().committed;
    HOLD(counters().dropped > 0 && counters().connected == 1);
    /* Faster than anybody takes them. */
    for (way = 0; way < 1000; way++)
        HOLD(feed(way) == RINGGEAR_OK);
    HOLD(counters().committed == committed + 1000 && counters().superseded > 0);
    printf("back: dropped %llu\n", (unsigned long long)counters().dropped);
    /* The test kills the daemon now, and this call is the first to meet its absence. */
    getchar();
    code = ringgear_close(producer, &account);
    producer = NULL;
    printf("closed: %s\n", ringgear_strerror(code));
    HOLD(code == RINGGEAR_E_GONE && account.used == 0 && ringgear_last_error(NULL)[0] != '\0');
    return 0;
}
