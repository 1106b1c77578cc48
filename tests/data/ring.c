/* Each rank hands a megabyte to the next one, then all add up what they were handed. */
#include <mpi.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BYTES = 1 << 20 };
static unsigned char data[BYTES];

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    int rank, size;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);

    memset(data, rank + 1, BYTES);
    MPI_Sendrecv_replace(data, BYTES, MPI_BYTE, (rank + 1) % size, 0, (rank + size - 1) % size, 0,
                         MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    int handed = data[0];
    for (int i = 0; i < BYTES; i++)
        if (data[i] != handed)
            MPI_Abort(MPI_COMM_WORLD, 1);
    int sum;
    MPI_Allreduce(&handed, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);

    char host[256];
    gethostname(host, sizeof host);
    printf("%s: rank %d of %d was handed %d, sum %d\n", host, rank, size, handed, sum);
    return MPI_Finalize();
}
