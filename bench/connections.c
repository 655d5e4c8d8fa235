/* A server and a client of TCP that cost little beside what is measured.
 *
 *   connections serve PORT                       until it is killed
 *   connections rate ADDRESS PORT COUNT          one after another: seconds, connect p50, p99 in us
 *   connections stream ADDRESS PORT SECONDS      bytes per second
 *
 * A client says 'c' and is told the address that it was translated to (4 bytes), or 's' and is
 * sent bytes until it goes.  It ends by a reset, so that no port waits.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char block[1 << 17];

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec + at.tv_nsec / 1e9;
}

static void stream(int client)
{
	if (fork())
		return;
	while (send(client, block, sizeof block, MSG_NOSIGNAL) > 0)
		;
	_exit(0);
}

static void serve(int port)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
	int one = 1, listening = socket(AF_INET, SOCK_STREAM, 0);

	signal(SIGCHLD, SIG_IGN);
	setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listening, (struct sockaddr *)&at, sizeof at) || listen(listening, 4096))
		fail("listen");
	for (;;) {
		socklen_t size = sizeof at;
		int client = accept(listening, NULL, NULL);
		char asked = 0;

		if (client < 0)
			continue;
		if (recv(client, &asked, 1, 0) == 1 && asked == 'c' &&
		    !getsockname(client, (struct sockaddr *)&at, &size))
			send(client, &at.sin_addr, 4, MSG_NOSIGNAL);
		else if (asked == 's')
			stream(client);
		close(client);
	}
}

static int opened(const char *address, int port, double *took)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct linger at_once = {1, 0};
	int sock = socket(AF_INET, SOCK_STREAM, 0);
	struct timeval patience = {2, 0};
	double began;

	setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	began = now();
	inet_pton(AF_INET, address, &to.sin_addr);
	if (connect(sock, (struct sockaddr *)&to, sizeof to))
		fail("connect");
	*took = now() - began;
	setsockopt(sock, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
	return sock;
}

static int by_size(const void *one, const void *other)
{
	double a = *(const double *)one, b = *(const double *)other;

	return (a > b) - (a < b);
}

static void rate(const char *address, int port, int count)
{
	double *took = calloc(count, sizeof *took), began = now(), all;
	char answer[4];

	for (int at = 0; at < count; at++) {
		int sock = opened(address, port, &took[at]);

		if (send(sock, "c", 1, 0) != 1 || recv(sock, answer, 4, 0) != 4)
			fail("answer");
		close(sock);
	}
	all = now() - began;
	qsort(took, count, sizeof *took, by_size);
	printf("%.6f %.1f %.1f\n", all, took[count / 2] * 1e6, took[count * 99 / 100] * 1e6);
}

static void throughput(const char *address, int port, double seconds)
{
	double ignored, began, bytes = 0;
	int sock = opened(address, port, &ignored);
	ssize_t got;

	send(sock, "s", 1, 0);
	for (began = now(); now() - began < seconds; bytes += got)
		if ((got = recv(sock, block, sizeof block, 0)) <= 0)
			fail("stream");
	printf("%.0f\n", bytes / (now() - began));
	close(sock);
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve(atoi(argv[2]));
	else if (argc == 5 && !strcmp(argv[1], "rate"))
		rate(argv[2], atoi(argv[3]), atoi(argv[4]));
	else if (argc == 5 && !strcmp(argv[1], "stream"))
		throughput(argv[2], atoi(argv[3]), atof(argv[4]));
	else
		return 2;
	return 0;
}
