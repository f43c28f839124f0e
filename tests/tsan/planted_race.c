/* A race on purpose, in code of the library: it proves that the thread sanitizer still sees ours. */
#include <rpcrew/impl/message.h>

#include <pthread.h>

static crew_list shared;

static void *append(void *argument)
{
    (void)argument;
    for (int i = 0; i < 1000; i++) {
        crew_message *message = crew_message_new();
        pthread_testcancel();
        if (message && shared.count < 10)
            crew_list_append(&shared, message);
        else
            crew_message_free(message);
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        if (pthread_create(&threads[i], NULL, append, NULL) != 0)
            return 2;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
