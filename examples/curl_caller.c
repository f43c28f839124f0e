/* The protocol alone, over somebody else's HTTP library: calls are written, libcurl posts them, and the
 * replies are read. Here two calls and a notification go as one batch, and each finds its reply, in whatever
 * order they come.
 *
 *   $ curl_caller http://127.0.0.1:8080/
 *   42 - 23 = 19
 *   23 - 42 = -19 */
#include <rpcrew.h>

#include <curl/curl.h>
#include <err.h>
#include <stdio.h>
#include <stdlib.h>

enum { ANSWER_MOST = 1 << 20 };

struct answer {
    char *data;
    size_t size;
};

static size_t take(char *bytes, size_t size, size_t count, void *mine)
{
    struct answer *answer = mine;
    size_t more = size * count;
    char *data = more > ANSWER_MOST - answer->size ? NULL : realloc(answer->data, answer->size + more);
    if (!data)
        return 0;
    memcpy(data + answer->size, bytes, more);
    answer->data = data;
    answer->size += more;
    return more;
}

/* Posts a message; the answer's data is the caller's. */
static struct answer post(const char *url, const char *content_type, const crew_bytes *message)
{
    char field[100];
    struct answer answer = { 0 };
    CURL *curl = curl_easy_init();
    (void)snprintf(field, sizeof field, "Content-Type: %s", content_type);
    struct curl_slist *fields = curl_slist_append(NULL, field);
    (void)curl_easy_setopt(curl, CURLOPT_URL, url);
    (void)curl_easy_setopt(curl, CURLOPT_HTTPHEADER, fields);
    (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDS, message->data);
    (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)message->size);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer);
    CURLcode code = curl_easy_perform(curl);
    if (code != CURLE_OK)
        errx(1, "%s: %s", url, curl_easy_strerror(code));
    curl_slist_free_all(fields);
    curl_easy_cleanup(curl);
    return answer;
}

static void show(const char *what, const crew_incoming_reply *reply)
{
    double result;
    if (reply && reply->status == CREW_OK && crew_value_double(reply->result, &result) == CREW_OK)
        printf("%s = %g\n", what, result);
    else if (reply && reply->status == CREW_REMOTE_ERROR)
        printf("%s: %.*s (code %lld)\n", what, CREW_STR(reply->message), (long long)reply->code);
    else
        printf("%s: %s\n", what, reply && reply->reason ? reply->reason : "no reply");
}

int main(int argc, char **argv)
{
    const crew_protocol *protocol = crew_protocol_find("jsonrpc");
    const crew_value *one, *other;
    crew_arena *arena = NULL;
    crew_incoming_replies replies = { 0 };
    crew_bytes message = { 0 };
    crew_error why;
    if (argc != 2)
        errx(2, "usage: curl_caller URL");
    if (crew_arena_new(&arena) != CREW_OK || crew_pack(arena, &one, "[i,i]", 42, 23) != CREW_OK ||
        crew_pack(arena, &other, "{s:i,s:i}", "subtrahend", 42, "minuend", 23) != CREW_OK)
        errx(1, "no memory");
    const crew_outgoing calls[] = { { "subtract", one, 1 },
                                    { "subtract", other, 2 },
                                    { "subtract", one, 0 } };
    if (crew_write_calls(protocol, calls, sizeof calls / sizeof *calls, &message) != CREW_OK)
        errx(1, "calls that cannot be written");
    struct answer answer = post(argv[1], crew_protocol_content_type(protocol), &message);
    const crew_string bytes = { answer.data, answer.size };
    if (crew_read_replies(protocol, bytes, NULL, arena, &replies, &why) != CREW_OK)
        errx(1, "an answer that is none: %s", why.message);
    show("42 - 23", crew_reply_to(&replies, 1));
    show("23 - 42", crew_reply_to(&replies, 2));
    free(answer.data);
    crew_bytes_free(&message);
    crew_arena_free(arena);
    return 0;
}
