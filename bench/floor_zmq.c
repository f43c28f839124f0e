/* The floor on ZeroMQ: a ROUTER that answers in its loop; a REQ for one call at a time, else a DEALER. With
 * "threads" the ROUTER's thread hands requests in bursts to two others over a queue, and gets the answers
 * back the same way with an eventfd: what any server with a pool has to do.
 *
 * usage: floor_zmq server|threads ADDRESS | client ADDRESS CALLS_AT_A_TIME SECONDS */
#include "floor.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

enum { THREADS = 2, FRAMES_MOST = 8 };

static void *new_socket(int type)
{
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, type);
    int none = 0;
    if (!socket)
        floor_fail("no socket");
    (void)zmq_setsockopt(socket, ZMQ_SNDHWM, &none, sizeof none);
    (void)zmq_setsockopt(socket, ZMQ_RCVHWM, &none, sizeof none);
    return socket;
}

/* A message, of which only the last frame is looked at. */
struct item {
    struct item *next;
    zmq_msg_t frames[FRAMES_MOST];
    int count;
    char *answer;
};

/* The parts of the envelope go back as they came. */
static bool receive(void *socket, struct item *item)
{
    int more = 1;
    for (item->count = 0; more && item->count < FRAMES_MOST; item->count++) {
        (void)zmq_msg_init(&item->frames[item->count]);
        if (zmq_msg_recv(&item->frames[item->count], socket, ZMQ_DONTWAIT) < 0)
            return false;
        more = zmq_msg_more(&item->frames[item->count]);
    }
    return true;
}

static void work(struct item *item)
{
    zmq_msg_t *body = &item->frames[item->count - 1];
    item->answer = floor_answer(zmq_msg_data(body), zmq_msg_size(body));
}

static void answer(void *socket, struct item *item)
{
    for (int i = 0; i < item->count - 1; i++)
        (void)zmq_msg_send(&item->frames[i], socket, ZMQ_SNDMORE);
    (void)zmq_send(socket, item->answer, strlen(item->answer), 0);
    (void)zmq_msg_close(&item->frames[item->count - 1]);
    free(item->answer);
}

static void *bind_router(const char *address)
{
    void *socket = new_socket(ZMQ_ROUTER);
    if (zmq_bind(socket, address) != 0)
        floor_fail("bind");
    puts("serving");
    (void)fflush(stdout);
    return socket;
}

static _Noreturn void serve(const char *address)
{
    void *socket = bind_router(address);
    struct item item;
    for (;;) {
        zmq_pollitem_t poll = { .socket = socket, .events = ZMQ_POLLIN };
        (void)zmq_poll(&poll, 1, -1);
        while (receive(socket, &item)) {
            work(&item);
            answer(socket, &item);
        }
    }
}

/* ---- with threads ---- */

struct queue {
    pthread_mutex_t mutex;
    pthread_cond_t filled;
    struct item *head, **tail;
};

static struct queue requests = { .mutex = PTHREAD_MUTEX_INITIALIZER, .filled = PTHREAD_COND_INITIALIZER },
                    answers = { .mutex = PTHREAD_MUTEX_INITIALIZER };
static int answered;

static void put(struct queue *queue, struct item *first, struct item **tail)
{
    pthread_mutex_lock(&queue->mutex);
    *(queue->head ? queue->tail : &queue->head) = first;
    queue->tail = tail;
    pthread_cond_broadcast(&queue->filled);
    pthread_mutex_unlock(&queue->mutex);
}

static void *run_thread(void *unused)
{
    (void)unused;
    for (;;) {
        uint64_t one = 1;
        pthread_mutex_lock(&requests.mutex);
        while (!requests.head)
            pthread_cond_wait(&requests.filled, &requests.mutex);
        struct item *item = requests.head;
        requests.head = item->next;
        pthread_mutex_unlock(&requests.mutex);
        work(item);
        item->next = NULL;
        pthread_mutex_lock(&answers.mutex);
        bool was_empty = !answers.head;
        *(answers.head ? answers.tail : &answers.head) = item;
        answers.tail = &item->next;
        pthread_mutex_unlock(&answers.mutex);
        if (was_empty && write(answered, &one, sizeof one) < 0)
            floor_fail("eventfd");
    }
}

static _Noreturn void serve_with_threads(const char *address)
{
    void *socket = bind_router(address);
    pthread_t thread;
    answered = eventfd(0, EFD_NONBLOCK);
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&thread, NULL, run_thread, NULL) != 0)
            floor_fail("no thread");
    for (;;) {
        zmq_pollitem_t poll[] = { { .socket = socket, .events = ZMQ_POLLIN },
                                  { .fd = answered, .events = ZMQ_POLLIN } };
        uint64_t count;
        (void)zmq_poll(poll, 2, -1);
        if (poll[1].revents)
            (void)!read(answered, &count, sizeof count);
        struct item *first = NULL, **tail = &first, *item = malloc(sizeof *item);
        while (receive(socket, item)) {
            item->next = NULL;
            *tail = item;
            tail = &item->next;
            item = malloc(sizeof *item);
        }
        free(item);
        if (first)
            put(&requests, first, tail);
        pthread_mutex_lock(&answers.mutex);
        struct item *done = answers.head;
        answers.head = NULL;
        pthread_mutex_unlock(&answers.mutex);
        while (done) {
            struct item *next = done->next;
            answer(socket, done);
            free(done);
            done = next;
        }
    }
}

/* ---- the client ---- */

static int call(char **words)
{
    struct floor_client *client = floor_client_new(words[1], words[2]);
    bool alone = floor_client_lanes(client) == 1, more = true;
    void *socket = new_socket(alone ? ZMQ_REQ : ZMQ_DEALER);
    if (zmq_connect(socket, words[0]) != 0)
        floor_fail("connect");
    while (more) {
        for (char *request; (request = floor_client_request(client));) {
            if (!alone)
                (void)zmq_send(socket, "", 0, ZMQ_SNDMORE);
            (void)zmq_send(socket, request, strlen(request), 0);
            free(request);
        }
        int flags = 0; /* sleeps for the first answer, then takes what there is */
        for (;;) {
            zmq_msg_t body;
            int part = 1;
            while (part) {
                (void)zmq_msg_init(&body);
                if (zmq_msg_recv(&body, socket, flags) < 0)
                    break;
                part = zmq_msg_more(&body);
                if (part)
                    (void)zmq_msg_close(&body);
            }
            if (part)
                break;
            more = floor_client_answer(client, zmq_msg_data(&body), zmq_msg_size(&body));
            (void)zmq_msg_close(&body);
            flags = ZMQ_DONTWAIT;
            if (alone || !more)
                break;
        }
    }
    return floor_client_end(client);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "server") == 0)
        serve(argv[2]);
    if (argc == 3 && strcmp(argv[1], "threads") == 0)
        serve_with_threads(argv[2]);
    if (argc == 5 && strcmp(argv[1], "client") == 0)
        return call(argv + 2);
    floor_fail("usage: floor_zmq server|threads ADDRESS | client ADDRESS CALLS_AT_A_TIME SECONDS");
}
