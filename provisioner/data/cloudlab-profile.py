"""A number of bare-metal machines for `provision`, on one cluster, each with one disk image.

Instructions:
The tool `provision` starts experiments of this profile. Do not start one by hand: a machine of
it does nothing by itself.
"""

import geni.portal as portal
import geni.rspec.pg as rspec

pc = portal.Context()

pc.defineParameter(
    "count", "Machines", portal.ParameterType.INTEGER, 1,
    longDescription="How many machines.")
pc.defineParameter(
    "hardware", "Hardware type", portal.ParameterType.NODETYPE, "",
    longDescription="Type of the machines, such as m510; any type when empty.")
pc.defineParameter(
    "image", "Disk image", portal.ParameterType.STRING,
    "urn:publicid:IDN+emulab.net+image+emulab-ops:UBUNTU24-64-STD",
    longDescription="Debian or Ubuntu, with sshd.")
# The tags by which `provision` finds its experiments when its database is lost. They change
# nothing of the machines.
pc.defineParameter(
    "ipop_owner", "Owner", portal.ParameterType.STRING, "",
    longDescription="The installation of provision that started it.")
pc.defineParameter(
    "ipop_deployment", "Deployment", portal.ParameterType.STRING, "",
    longDescription="Name of the deployment.")
pc.defineParameter(
    "ipop_uid", "Deployment, unmistakably", portal.ParameterType.STRING, "",
    longDescription="Random digits of the deployment.")

params = pc.bindParameters()
if params.count < 1:
    pc.reportError(portal.ParameterError("at least one machine is needed", ["count"]))
pc.verifyParameters()

request = pc.makeRequestRSpec()
for number in range(params.count):
    # `provision` counts on these names.
    node = request.RawPC("node%d" % number)
    node.disk_image = params.image
    if params.hardware:
        node.hardware_type = params.hardware
pc.printRequestRSpec(request)
