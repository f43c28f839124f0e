/* WebSocket (RFC 6455) over a stream, either end: text is JSON, binary is MessagePack. */
#ifndef TRANSPORT_WS_SESSION_H
#define TRANSPORT_WS_SESSION_H

#include "transport/http_message.h"
#include "transport/stream.h"

extern const struct stream_session stream_ws;

/* Worker: answers a request to upgrade, which was judged to be one, and goes on as WebSocket. end_http frees
 * the state of what was spoken before. */
enum stream_found ws_accept(struct stream *stream, const struct http_message *request,
                            void (*end_http)(struct stream *stream));

/* Caller: goes on as WebSocket once the other end has agreed; CREW_NO_MEMORY. */
CREW_NODISCARD crew_status ws_begin(struct stream *stream, bool client);

enum { WS_KEY_SIZE = 24, WS_ACCEPT_SIZE = 28 };
/* A new key; false: there is no randomness. */
bool ws_make_key(char key[WS_KEY_SIZE + 1]);
/* What a server answers to it. */
void ws_accept_key(const char *key, char accept[WS_ACCEPT_SIZE + 1]);

#endif
