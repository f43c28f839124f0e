/* A race on purpose, in code of the library: it proves that the thread sanitizer still sees ours. */
#include <rpcrew/impl/message.h>

#include <pthread.h>

static crew_list shared;
static pthread_barrier_t barrier;

/* Once each, and neither before the other: so the sanitizer has nothing to forget. */
static void *append(void *argument)
{
    crew_message *message = argument;
    (void)pthread_barrier_wait(&barrier);
    crew_list_append(&shared, message);
    return NULL;
}

int main(void)
{
    pthread_t threads[2];
    crew_message *messages[2] = { crew_message_new(), crew_message_new() };
    if (!messages[0] || !messages[1] || pthread_barrier_init(&barrier, NULL, 2) != 0)
        return 2;
    for (int i = 0; i < 2; i++)
        if (pthread_create(&threads[i], NULL, append, messages[i]) != 0)
            return 2;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++)
        crew_message_free(messages[i]);
    return 0;
}
