#!/usr/bin/awk -f
# The shallow lake: phosphorus in the water of a lake, year by year (Carpenter, Ludwig and Brock, 1999,
# Ecological Applications 9(3), 751-771), without dimensions.
#
#   x' = x + a - b x + x^q / (1 + x^q)
#
# a is what runs into it in a year, b what is lost, and the last term what comes back from the sediment. Between two
# values of a the lake has two states, clear and turbid, and which one it is in depends on which it was in.
#
# Reads lines "LOAD START", writes lines "LOAD START STATE" with the state after 1000 years.

BEGIN { b = 0.42; q = 2; years = 1000 }

/^#/ || NF != 2 { next }

{
    x = $2
    for (year = 0; year < years; year++) {
        recycled = x ^ q
        x += $1 - b * x + recycled / (1 + recycled)
    }
    printf "%s %s %.6f\n", $1, $2, x
}
