#!/usr/bin/awk -f
# Draws all results as an SVG file: the lake's state over the load, a colour for each site.
#   awk -f plot.awk FOLDER/results/* >lake.svg

BEGIN {
    width = 640; height = 400; left = 60; bottom = 50; margin = 20
    highest_load = 0.10; highest_state = 3
    count = split("#1f77b4 #d95f02 #1b9e77 #7570b3 #e7298a #66a61e", colours, " ")
    print "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" width "\" height=\"" height "\" font-family=\"sans-serif\" font-size=\"12\">"
    print "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
    for (i = 0; i <= 4; i++) {
        x = across(highest_load * i / 4); y = up(highest_state * i / 4)
        printf "<path d=\"M%.1f %.1fV%.1f M%.1f %.1fH%.1f\" stroke=\"#ddd\"/>\n", x, up(0), up(highest_state), left, y, across(highest_load)
        printf "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.3f</text>\n", x, height - bottom + 18, highest_load * i / 4
        printf "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%.2f</text>\n", left - 8, y + 4, highest_state * i / 4
    }
    printf "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">phosphorus that runs in, a year</text>\n", across(highest_load / 2), height - 12
    printf "<text transform=\"translate(16 %.1f) rotate(-90)\" text-anchor=\"middle\">phosphorus in the water</text>\n", up(highest_state / 2)
}

# Who computed what follows, and where.
$1 == "#" {
    site = $4
    if (!(site in colour)) {
        colour[site] = colours[(sites++) % count + 1]
        y = margin + 16 * sites
        printf "<circle cx=\"%d\" cy=\"%d\" r=\"4\" fill=\"%s\"/><text x=\"%d\" y=\"%d\">%s</text>\n", left + 16, y - 4, colour[site], left + 26, y, site
    }
    next
}

# A lake that was turbid at first is a dot, one that was clear a ring, around the dot where it became turbid.
NF == 3 {
    was_turbid = ($2 > 1)
    fill = was_turbid ? colour[site] : "none"
    printf "<circle class=\"state\" cx=\"%.1f\" cy=\"%.1f\" r=\"%s\" fill=\"%s\" stroke=\"%s\"/>\n", across($1), up($3), (was_turbid ? 3 : 5), fill, colour[site]
}

END { print "</svg>" }

function across(load) { return left + load / highest_load * (width - left - margin) }
function up(state) { return height - bottom - state / highest_state * (height - bottom - margin) }
