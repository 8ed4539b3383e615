//! From the files to a [`Plan`].

use std::collections::BTreeMap;
use std::sync::Arc;

use super::image::Image;
use super::{Base, ConfigPatch, Error, Inputs, Layer, Pins, Plan, Sources, time};
use crate::lock;
use crate::oci::Platform;
use crate::recipe::{Action, Pin};
use crate::text::Problems;

/// Names the base (image-spec, annotations).
const BASE_NAME: &str = "org.opencontainers.image.base.name";
/// Pins the base (image-spec, annotations).
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
/// Commits an image to the lock that it was built with.
const LOCK: &str = "dev.ocibuild.lock";

/// Returns what will be done for a platform.
pub fn plan(sources: &Sources, inputs: &Inputs<'_>) -> Result<Plan, Error> {
    let definition = &sources.definition;
    let platform = inputs.platform;
    if !definition.platforms.iter().any(|known| known.satisfies(platform)) {
        return Err(Error::Platform {
            name: definition.name.clone(),
            platform: Box::new(platform.clone()),
            known: definition.platforms.clone(),
        });
    }
    let has = inputs.base.platform();
    if !has.satisfies(platform) {
        return Err(Error::BasePlatform {
            base: Box::new(definition.base.clone()),
            has: Box::new(has),
            wanted: Box::new(platform.clone()),
        });
    }
    let problems = Problems::new();
    if let Some(lock) = sources.lock.as_ref().filter(|lock| lock.rules != inputs.rules.version) {
        let message = format!(
            "the lock was made under the rules {}, this ocibuild has {}: lock again",
            lock.rules, inputs.rules.version
        );
        problems.about(&lock::path_beside(definition.file.path()), message);
    }
    let locked = sources.lock.as_ref().and_then(|lock| lock.section(platform));
    if let (Some(section), Some(manifest)) = (locked, inputs.base_manifest)
        && section.base != manifest
    {
        let message = format!(
            "the lock says that the base's manifest for {platform} is {}, but it is {manifest}: \
             lock again",
            section.base
        );
        problems.about(&lock::path_beside(definition.file.path()), message);
    }
    let mut warnings = Vec::new();
    let mut image = Image::new(inputs, &problems);
    let mut layers = Vec::new();
    for (layer, recipe) in definition.layers.iter().zip(&sources.recipes) {
        let source_date = source_date(sources, inputs, &recipe.name, &mut warnings);
        let mut resolved = image.layer(definition, layer, recipe, inputs, source_date)?;
        resolved.pins = pins(sources, platform, &recipe.name)?;
        warnings.extend(unpinned(&resolved));
        layers.push(resolved);
    }
    let created = layers.iter().map(|layer| layer.source_date).max();
    let (env, home) = image.finish(&definition.config.env, &definition.file);
    let base = Base {
        reference: definition.base.clone(),
        digest: inputs.base_digest,
        manifest: inputs.base_manifest,
    };
    let origin = origin(&base);
    let mut labels = origin.clone();
    // An image of which a part was open is no function of the lock.
    if let Some(lock) = &sources.lock
        && layers.iter().all(|layer| layer.pins.is_some())
        && let Some(digest) = lock.digest(platform)?
    {
        labels.insert(LOCK.to_owned(), digest.to_string());
    }
    labels.extend(definition.config.labels.clone());
    let mut annotations = origin;
    annotations.extend(definition.annotations.clone());
    let config = &definition.config;
    let config = ConfigPatch {
        env,
        labels,
        user: config.user.clone(),
        workdir: config.workdir.clone(),
        entrypoint: config.entrypoint.clone(),
        command: config.command.clone(),
        ports: config.ports.clone(),
        stop_signal: config.stop_signal.clone(),
        created,
    };
    let plan = Plan {
        name: definition.name.clone(),
        platform: platform.clone(),
        destinations: definition.destinations(),
        base,
        compression: definition.compression,
        layers,
        config,
        annotations,
        home,
        created,
        warnings,
    };
    Ok(problems.finish(Some(plan))?)
}

/// The lock's date for the layer, else the caller's, else the base's.
fn source_date(
    sources: &Sources,
    inputs: &Inputs<'_>,
    name: &str,
    warnings: &mut Vec<String>,
) -> i64 {
    let locked = sources.lock.as_ref().and_then(|lock| lock.layer(inputs.platform, name));
    locked.map(|layer| layer.source_date).or(inputs.source_date_epoch).unwrap_or_else(|| {
        let (date, warning) = time::of_base(inputs.base);
        warnings.extend(warning.filter(|warning| !warnings.contains(warning)));
        date
    })
}

fn pins(sources: &Sources, platform: &Platform, name: &str) -> Result<Option<Pins>, Error> {
    let locked = sources.lock.as_ref().and_then(|lock| lock.layer(platform, name));
    locked
        .map(|layer| {
            let fetches = Arc::new(layer.fetches.clone());
            Ok(Pins { digest: layer.pins()?, fetches })
        })
        .transpose()
}

fn origin(base: &Base) -> BTreeMap<String, String> {
    let mut origin = BTreeMap::new();
    // The digest has a key of its own.
    let name = match base.reference.tag() {
        Some(tag) => format!("{}:{tag}", base.reference.name()),
        None => base.reference.to_string(),
    };
    origin.insert(BASE_NAME.to_owned(), name);
    if let Some(digest) = base.manifest.or(base.digest) {
        origin.insert(BASE_DIGEST.to_owned(), digest.to_string());
    }
    origin
}

fn unpinned(layer: &Layer) -> Vec<String> {
    layer
        .steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::Fetch(fetch) if fetch.pin == Pin::Unpinned => {
                let (layer, step, url) = (&layer.name, &step.name, &fetch.url);
                Some(format!("layer `{layer}`, step `{step}` takes whatever {url} gives"))
            }
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::example::Example;
    use serde_json::json;

    use super::super::{Act, Off, OsRelease};
    use super::*;
    use crate::oci::{ConfigDocument, Digest};

    fn noble() -> OsRelease {
        OsRelease::parse("ID=ubuntu\nVERSION_CODENAME=noble\nVERSION_ID=\"24.04\"\n")
    }

    fn acts(plan: &Plan, tree: &OsRelease) -> Vec<Act> {
        plan.layers[0].steps.iter().map(|step| step.resolve(tree).unwrap()).collect()
    }

    #[test]
    fn a_step_is_filled_in_by_the_plan_and_then_by_the_tree() {
        let plan = Example::default().plan();
        let acts = acts(&plan, &noble());
        let Act::Run(run) = &acts[0] else { panic!("{:?}", acts[0]) };
        let argv = ["/bin/bash", "/run/ocibuild/recipe/install.sh", "--for", "noble", "1.2"];
        assert_eq!(run.argv, argv);
        assert_eq!(run.title, "install.sh --for noble 1.2");
        assert_eq!(run.user.to_string(), "1000:100");
        for (name, value) in [
            ("PATH", "/usr/bin:/bin"),
            ("NB_USER", "jovyan"),
            ("TOOL_HOME", "/opt/tool-1.2"),
            ("VERSION", "1.2"),
            ("OTHER_ARG", "x"),
            ("MODE", "full"),
            ("ARCH", "amd64"),
            ("MACHINE", "x86_64"),
            ("CODENAME", "noble"),
            ("DISTRIBUTION", "ubuntu"),
            ("RELEASE", "24.04"),
            ("SOURCE_DATE_EPOCH", "1739188800"),
            ("PYTHONHASHSEED", "0"),
            ("OCIBUILD_RECIPE", "/run/ocibuild/recipe"),
            ("PIP_CACHE_DIR", "/var/cache/ocibuild/pip"),
        ] {
            assert_eq!(run.env.get(name).map(String::as_str), Some(value), "{name}");
        }
        let Act::Run(inline) = &acts[2] else { panic!("{:?}", acts[2]) };
        let argv = ["/bin/bash", "-euo", "pipefail", "-c", "echo {not-a-variable}"];
        assert_eq!(inline.argv, argv);
        assert!(!inline.network && !inline.env.contains_key("MODE"));
        assert_eq!(inline.env["PATH"], "/usr/bin:/bin:/opt/tool-1.2/bin");
        let Act::Fetch { url, sha256, .. } = &acts[4] else { panic!("{:?}", acts[4]) };
        assert_eq!(url, "https://example.org/1.2/tool-x86_64-24.04.tar");
        assert_eq!(*sha256, Some(Digest::of(b"")));
        assert_eq!(
            plan.layers[0].off,
            [Off { name: "arm".to_owned(), reason: "only on arm64, this is amd64".to_owned() }]
        );
        let nameless = OsRelease::parse("ID=debian\n");
        let missing = plan.layers[0].steps[0].resolve(&nameless).unwrap_err();
        assert!(missing.to_string().contains("VERSION_CODENAME"), "{missing}");
    }

    #[test]
    fn the_configuration_keeps_what_is_not_said() {
        let mut example = Example::default();
        example.definition.push_str(
            "[config]\nenv = { PATH = \"/first:{PATH}\", NEW = \"{{}}\" }\nports = [8787, \"53/udp\"]\n\
             labels = { b = \"mine\" }\n",
        );
        let plan = example.plan();
        let mut config = ConfigDocument::read(&serde_json::to_vec(&example.base).unwrap()).unwrap();
        plan.config.apply(&mut config);
        let mut expected = example.base.clone();
        let parameters = &mut expected["config"];
        parameters["Env"] = json!([
            "PATH=/first:/usr/bin:/bin:/opt/tool-1.2/bin",
            "NB_USER=jovyan",
            "TOOL_HOME=/opt/tool-1.2",
            "NEW={}"
        ]);
        parameters["ExposedPorts"] = json!({"8888/tcp": {}, "8787/tcp": {}, "53/udp": {}});
        parameters["Labels"] = json!({
            "a": "base",
            "b": "mine",
            "org.opencontainers.image.base.name": "quay.io/a/base:1",
            "org.opencontainers.image.base.digest": Digest::of(b"manifest").to_string(),
        });
        assert_eq!(config.as_json(), expected);
        assert_eq!(plan.home.as_deref(), Some("/home/jovyan"));
        assert_eq!(plan.annotations["org.opencontainers.image.base.name"], "quay.io/a/base:1");
    }

    #[test]
    fn a_plan_can_be_printed() {
        let plan = serde_json::to_value(Example::default().plan()).unwrap();
        let layer = &plan["layers"][0];
        assert_eq!(plan["platform"], "linux/amd64");
        assert_eq!(plan["destinations"], json!(["ghcr.io/me/mine:latest"]));
        assert_eq!(layer["files"][2]["path"], "install.sh");
        assert_eq!(layer["steps"][0]["run"]["args"][1], "{codename}");
        assert_eq!(layer["steps"][0]["run"]["timeout"], 1800);
        assert_eq!(layer["steps"][3]["copy"]["mode"], 0o640);
        assert_eq!(layer["off"][0]["reason"], "only on arm64, this is amd64");
    }

    #[test]
    fn an_entrypoint_is_replaced_with_its_command_or_taken_away() {
        let mut example = Example::default();
        example
            .definition
            .push_str("[config]\nentrypoint = []\ncommand = [\"bash\"]\nuser = \"0\"\n");
        let mut config = ConfigDocument::read(&serde_json::to_vec(&example.base).unwrap()).unwrap();
        example.plan().config.apply(&mut config);
        assert_eq!(config.parameter("Entrypoint"), None);
        assert_eq!(config.parameter("Cmd"), Some(&json!(["bash"])));
        assert_eq!(config.user(), "0");
        assert_eq!(config.working_dir(), "/home/jovyan");
    }

    #[test]
    fn the_date_is_the_locks_then_the_callers_then_the_bases() {
        let mut example = Example::default();
        assert_eq!(example.plan().layers[0].source_date, 1_739_188_800);
        example.epoch = Some(5);
        assert_eq!(example.plan().layers[0].source_date, 5);
        example.lock("tool", 7, "");
        let plan = example.plan();
        assert_eq!((plan.layers[0].source_date, plan.created), (7, Some(7)));
        assert!(plan.config.labels["dev.ocibuild.lock"].starts_with("sha256:"));
        assert_eq!(plan.layers[0].history(false).created.unwrap(), "1970-01-01T00:00:07Z");
        // An image of which a part was open does not say that the lock made it.
        example.lock("other", 7, "");
        let plan = example.plan();
        assert_eq!((plan.layers[0].source_date, &plan.layers[0].pins), (5, &None));
        assert!(!plan.config.labels.contains_key("dev.ocibuild.lock"));
        let linux = [Platform::linux("amd64"), Platform::linux("arm64")];
        let misfits = example.sources().unwrap().misfits(&linux);
        let told: Vec<String> = misfits.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "the lock has no layer `tool` for linux/amd64",
                "the lock has nothing for linux/arm64",
                "the lock has a layer `other` that the definition has not",
            ]
        );
    }

    #[test]
    fn a_lock_of_other_rules_or_another_base_is_refused() {
        let mut example = Example::default();
        example.lock("tool", 7, "");
        example.rules = "n2";
        let error = example.try_plan().unwrap_err().to_string();
        assert!(error.contains("under the rules n1, this ocibuild has n2"), "{error}");
        let mut example = Example::default();
        example.lock("tool", 7, "");
        let other = Digest::of(b"other").to_string();
        let text = example.lock.take().unwrap();
        example.lock = Some(text.replace(&Digest::of(b"manifest").to_string(), &other));
        let error = example.try_plan().unwrap_err().to_string();
        assert!(error.contains("the base's manifest for linux/amd64 is"), "{error}");
    }

    #[test]
    fn a_recipe_has_one_digest_for_all_platforms_and_bases() {
        let example = Example::default();
        let mut arm = Example { platform: Platform::linux("arm64"), ..Example::default() };
        arm.base["config"]["Env"] = json!(["PATH=/bin"]);
        arm.epoch = Some(1);
        assert_eq!(example.plan().layers[0].recipe, arm.plan().layers[0].recipe);
        let entry = example.plan().layers[0].history(true);
        let digest = example.plan().layers[0].recipe;
        assert_eq!(entry.created_by.unwrap(), format!("ocibuild: tool (recipe {digest})"));
        arm.recipe("echo arm", "echo ARM");
        assert_ne!(example.plan().layers[0].recipe, arm.plan().layers[0].recipe);
    }

    #[test]
    fn what_only_a_plan_can_see_is_told_where_it_stands() {
        let mut example = Example::default();
        example.recipe("{PATH}:", "{PAHT}:");
        example.recipe.insert_str(0, "without-rules = [\"apt-log\"]\n");
        example.definition.push_str("[config]\nenv = { A = \"{NB_USR}\" }\n");
        let error = example.try_plan().unwrap_err();
        let Error::Problems(problems) = &error else { panic!("{error}") };
        let told: Vec<(u32, &str)> = problems
            .problems()
            .iter()
            .map(|problem| (problem.position.as_ref().unwrap().line, problem.message.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                (1, "there is no rule `apt-log`; did you mean `apt-logs`?"),
                (
                    17,
                    "the image has no variable `PAHT` in its environment here; did you mean \
                     `{PATH}`?"
                ),
                (
                    6,
                    "the image has no variable `NB_USR` in its environment here; did you mean \
                     `{NB_USER}`?"
                ),
            ]
        );
    }

    #[test]
    fn a_plan_is_for_a_platform_of_the_definition_on_a_base_for_it() {
        let example = Example { platform: Platform::linux("s390x"), ..Example::default() };
        let error = example.try_plan().unwrap_err();
        assert!(matches!(error, Error::Platform { .. }), "{error}");
        let unpinned = {
            let mut example = Example::default();
            let at = example.recipe.find("sha256.amd64").unwrap();
            let end = example.recipe.find("[[step]]\nname = \"arm\"").unwrap();
            example.recipe.replace_range(at..end, "unpinned = true\n");
            example.plan()
        };
        assert_eq!(
            unpinned.warnings,
            ["layer `tool`, step `download` takes whatever \
              https://example.org/1.2/tool-x86_64-{release}.tar gives"]
        );
    }
}
