/* Calls the calc worker in all ways.  usage: caller URL */
#include <rpcrew.h>

#include <err.h>
#include <semaphore.h>
#include <stdio.h>

static void on_difference(void *ended, crew_result *result, const crew_error *why)
{
    double difference;
    if (why->status == CREW_OK && crew_value_double(crew_result_value(result), &difference) == CREW_OK)
        printf("later: %g\n", difference);
    else
        warnx("%s", why->message);
    crew_result_free(result);
    (void)sem_post(ended);
}

int main(int argc, char **argv)
{
    crew_client *calc;
    crew_error why = { 0 };
    if (argc != 2)
        errx(2, "usage: caller URL");
    if (crew_client_new(&calc, argv[1], &(crew_client_options){ .timeout_ms = 5000 }, &why) != CREW_OK)
        errx(1, "%s", why.message);

    crew_result *result;
    double difference;
    crew_status status =
        crew_client_call(calc, "subtract", &result, &why, "{s:i,s:i}", "minuend", 42, "subtrahend", 23);
    if (status == CREW_OK && crew_value_double(crew_result_value(result), &difference) == CREW_OK)
        printf("now: %g\n", difference);
    else
        warnx("%s (executed: %s)", why.message, crew_executed_name(why.executed));
    crew_result_free(result); /* NULL is fine */

    sem_t ended;
    (void)sem_init(&ended, 0, 0);
    if (crew_client_start(calc, "subtract", on_difference, &ended, &why, "[ii]", 7, 2) != CREW_OK)
        errx(1, "%s", why.message);

    crew_batch *many;
    if (crew_batch_new(&many, calc) != CREW_OK)
        errx(1, "no memory");
    for (int i = 0; i < 5; i++)
        if (crew_batch_add(many, "subtract", "[ii]", 10, i) != CREW_OK)
            errx(1, "no memory");
    if (crew_batch_run(many, &why) != CREW_OK)
        warnx("%s", why.message);
    for (size_t i = 0; i < crew_batch_count(many); i++)
        if (crew_value_double(crew_batch_value(many, i), &difference) == CREW_OK)
            printf("many: %g\n", difference);
    crew_batch_free(many);

    if (crew_client_notify(calc, "subtract", &why, "[ii]", 1, 1) != CREW_OK)
        warnx("%s", why.message);
    while (sem_wait(&ended) != 0) /* a signal; freeing the client would cancel what has not ended */
        continue;
    (void)sem_destroy(&ended);
    crew_client_free(calc);
    return status == CREW_OK ? 0 : 1;
}
