use super::*;

#[test]
fn a_file_adds_sites_and_may_change_local() {
    let text = r#"
        [site.local]
        kind = "libvirt"
        memory = "1G"

        [site.lab]
        kind = "libvirt"
        uri = "qemu+ssh://lab.example/system"
        max = 8

        [rendezvous]
        kind = "embedded"
    "#;
    let sites = Sites::parse(text, "sites.toml").expect("valid");
    let names: Vec<_> = sites.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["local", "lab"]);
    assert_eq!(sites.find("local").expect("there").memory_mib, Some(1024));
    let SiteKind::Libvirt(lab) = &sites.find("lab").expect("there").kind else {
        panic!("another kind");
    };
    assert_eq!(lab.uri, "qemu+ssh://lab.example/system");
}

#[test]
fn each_defect_of_a_file_is_named_with_its_line() {
    let defects = [
        "[site.lab]\nkind = \"libvirt\"\nmemroy = \"1G\"\n",
        "[site.lab]\nkind = \"xen\"\n",
        "[site.lab]\nuri = \"qemu:///system\"\n",
        "[site.lab]\nkind = \"libvirt\"\nmemory = \"1\"\n",
        "[site.lab]\nkind = \"libvirt\"\nmax = 0\n",
        "[site.Lab]\nkind = \"libvirt\"\n",
        "[sites.lab]\nkind = \"libvirt\"\n",
        "[rendezvous]\nkind = \"embedded\"\nport = 5222\n",
        "[site.lab\n",
        "[site.lab]\nkind = \"ssh\"\nhosts = []\n",
        "[site.lab]\nkind = \"ssh\"\nuri = \"qemu:///system\"\nhosts = [\"a\"]\n",
        "[site.aws]\nkind = \"ec2\"\n",
        "[site.aws]\nkind = \"ec2\"\nregion = \"us-west-2\"\n\nspot = \"yes\"\n",
        "[site.rx]\nkind = \"rocks\"\nhost = \"a\"\n",
        "[site.rx]\nkind = \"rocks\"\nhost = \"a\"\nbridge = \"br 0\"\n",
        "[site.rx]\nkind = \"rocks\"\nhost = \"a b\"\nbridge = \"br0\"\n",
        "[site.rx]\nkind = \"rocks\"\nhost = \"a\"\nbridge = \"br0\"\naddress = \"10.1.1.1\"\n",
        "[site.rx]\nkind = \"rocks\"\nhost = \"a\"\nbridge = \"br0\"\naddresses = \"10.2.0.0/24\"\n",
        "[site.rx]\nkind = \"rocks\"\nhost = \"a\"\nbridge = \"br0\"\naddresses = \"10.1.1.0/24\"\n",
        "[site.rx]\nkind = \"rocks\"\nhost = \"a\"\nbridge = \"br0\"\nmtu = 576\n",
        "[site.lab]\nkind = \"libvirt\"\nlan = { bridge = \"br 0\" }\n",
        "[site.lab]\nkind = \"libvirt\"\n\n[site.lab.lan]\nadress = \"10.1.0.254/24\"\n",
        "[site.lab]\nkind = \"libvirt\"\n[site.lab.lan]\nbridge = \"br-lab\"\naddress = \"10.1.0.254/24\"\n",
        "[site.aws]\nkind = \"ec2\"\nregion = \"us-west-2\"\nlan = { bridge = \"br0\" }\n",
        "[site.cl]\nkind = \"cloudlab\"\nproject = \"p\"\nprofile = \"q\"\n",
    ];
    let messages: Vec<_> = defects
        .iter()
        .map(|text| {
            Sites::parse(text, "sites.toml")
                .expect_err("defective")
                .to_string()
        })
        .collect();
    insta::assert_snapshot!(messages.join("\n\n"));
}

#[test]
fn every_kind_of_site_is_read() {
    let text = r#"
        [site.machines]
        kind = "ssh"
        hosts = ["root@m1.example", "m2.example:2222"]

        [site.ucsd]
        kind = "rocks"
        host = "root@ucsd.example"
        bridge = "br0"

        [site.cloudlab]
        kind = "cloudlab"
        project = "lake"
        profile = "ipop"
        token_command = "pass show cloudlab"
        vms_per_machine = 5
        parallel = 4

        [site.cloud]
        kind = "ec2"
        region = "us-west-2"
        spot = true
        max = 200
    "#;
    let sites = Sites::parse(text, "sites.toml").expect("valid");
    let kind = |name: &str| sites.find(name).expect("there").kind.clone();
    assert!(matches!(kind("machines"), SiteKind::Ssh(s) if s.hosts.len() == 2));
    assert!(matches!(kind("cloud"), SiteKind::Ec2(e) if e.spot && !e.keep_images));
    let lan = sites
        .find("ucsd")
        .expect("there")
        .lan(false)
        .expect("a LAN");
    assert_eq!(lan.net().to_string(), "10.1.0.0/16");
    assert_eq!(lan.pool.to_string(), "10.1.128.0/24");
    let SiteKind::Cloudlab(cloudlab) = kind("cloudlab") else {
        panic!("another kind");
    };
    assert_eq!(cloudlab.vms_per_machine, Some(5));
    assert_eq!(cloudlab.api, "https://boss.emulab.net:43794");
    assert_eq!(sites.find("cloudlab").expect("there").parallel, Some(4));
}

#[test]
fn a_file_that_was_asked_for_must_be_there() {
    let error =
        Sites::load(Some(Path::new("/nonexistent/sites.toml")), |_| None).expect_err("absent");
    assert_eq!(error.code, ExitCode::Config);
    assert!(
        Sites::load(None, |_| None)
            .expect("local")
            .find(LOCAL)
            .is_ok()
    );
}

#[test]
fn every_example_in_the_documents_is_read_and_fits_the_schema() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).expect("JSON");
    let valid = jsonschema::validator_for(&schema).expect("a schema");
    let mut examples = 0;
    for text in [
        include_str!("../../../docs/sites.md"),
        include_str!("../../../docs/cloudlab.md"),
    ] {
        for block in text.split("```toml\n").skip(1) {
            let block = block.split("```").next().expect("an end");
            Sites::parse(block, "docs").expect(block);
            let value: serde_json::Value = toml::from_str(block).expect("TOML");
            assert!(valid.is_valid(&value), "{block}");
            examples += 1;
        }
    }
    assert_eq!(examples, 9);
    for wrong in [
        "[site.a]\nkind = 'ec2'",
        "[site.a]\nkind = 'ssh'\nhosts = ['a']\nuri = 'b'",
        "[site.a]\nkind = 'rocks'\nhost = 'a'",
        "[site.a]\nkind = 'rocks'\nhost = 'a'\nbridge = 'b'\nmtu = 576",
        "[site.A]\nkind = 'libvirt'",
        "[site.a]\nkind = 'libvirt'\nmax = 0",
        "[site.a]\nkind = 'libvirt'\nmemory = '1'",
        "[rendezvous]\nkind = 'embedded'\nport = 1",
    ] {
        let value: serde_json::Value = toml::from_str(wrong).expect("TOML");
        assert!(!valid.is_valid(&value), "{wrong}");
        Sites::parse(wrong, "wrong").expect_err(wrong);
    }
}

#[test]
fn the_schema_in_the_documents_is_what_the_types_say() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/sites.schema.json");
    if std::env::var_os("IPOP_WRITE_SCHEMA").is_some() {
        std::fs::write(&file, schema()).expect("written");
    }
    let kept = std::fs::read_to_string(&file).expect("docs/sites.schema.json");
    assert!(
        kept == schema(),
        "docs/sites.schema.json is old: IPOP_WRITE_SCHEMA=1 cargo test -p provisioner schema"
    );
}
