//! `lenet eval`, `predict` and `read`: what trained networks are good for.

use std::fs;

use lenet::model::safetensors;
use serde_json::Value;

use crate::common::project;
use crate::place::{Place, idx, lines, object, text};

/// A network file of one convolution for pictures of the given shape.
fn network(place: &Place, shape: [usize; 3], kernel: [usize; 2], classes: usize) {
    let [channels, height, width] = shape;
    let [rows, columns] = kernel;
    let text = format!(
        "name = \"small\"\ninput = {{ channels = {channels}, height = {height}, width = {width} }}\n\
         layers = [{{ conv2d = {{ channels = 8, kernel = [{rows}, {columns}] }} }}, \"relu\", \"flatten\", \
         {{ linear = {{ outputs = {classes} }} }}]\n"
    );
    fs::write(place.path("net.toml"), text).unwrap();
}

#[test]
fn colour_pictures_in_folders_are_learnt() {
    let place = Place::new();
    for (part, count) in [("train", 12), ("test", 3)] {
        for (class, colour) in [("blood orange", [200, 40, 20]), ("lime", [40, 200, 20])] {
            fs::create_dir_all(place.path(&format!("fruit/{part}/{class}"))).unwrap();
            for i in 0..count {
                let shade = |value: u8| value.saturating_add(5 * i as u8);
                let picture = image::RgbImage::from_pixel(8, 6, image::Rgb(colour.map(shade)));
                picture.save(place.path(&format!("fruit/{part}/{class}/{i}.png"))).unwrap();
            }
        }
    }
    network(&place, [3, 6, 8], [3, 3], 2);
    let told = lines(&place.ok(
        "train --net net.toml --data fruit --per-class 4 --epochs 30 --batch 8 --lr 0.01 --device cpu --out run --log json",
    ));
    assert_eq!(told[0]["train_images"], 8);
    assert!(fs::read_to_string(place.path("run/settings.toml")).unwrap().contains("per_class = 4\n"));
    place.fails("train --resume run --per-class 5 --device cpu", 2, &["per-class was 4, now 5"]);
    // The data, the names and how a picture is to be read are in the model's file.
    let told: Value = serde_json::from_str(&place.ok("eval run --device cpu --json")).unwrap();
    assert_eq!((told["images"].as_u64(), told["accuracy"].as_f64()), (Some(6), Some(1.0)));
    assert_eq!(told["classes"][1]["class"], "lime");
    assert!(place.ok("eval run --device cpu").contains("blood orange  "));
    let wide = image::RgbImage::from_pixel(90, 30, image::Rgb([60, 210, 30]));
    wide.save(place.path("wide.png")).unwrap();
    let out = place.ok("predict run wide.png --device cpu");
    assert!(out.starts_with("wide.png: lime\n"), "{out}");
    assert!(out.contains("seen as: 90x30 pixels, cropped to 40x30 at 25,0, scaled by 0.200\n"), "{out}");
    // Scaled to another size, they need another network.
    let line = "train --net net.toml --data fruit@4x4 --device cpu --out other";
    place.fails(line, 2, &["takes pictures of 3×6×8, the data has 3×4×4"]);
    place.fails("train --data fruit --per-class 0", 2, &["--per-class"]);
}

#[test]
fn texts_and_signals_are_learnt() {
    let place = Place::new();
    fs::create_dir(place.path("words")).unwrap();
    fs::write(place.path("words/train.txt"), "up\tabab\ndown\tcdcd\nup\tbaab\ndown\tDCC\n").unwrap();
    fs::write(place.path("words/test.txt"), "up\tab\ndown\tdd\n").unwrap();
    network(&place, [4, 1, 4], [1, 2], 2);
    place.ok("train --net net.toml --data words --epochs 60 --batch 4 --lr 0.01 --device cpu --out run");
    fs::write(place.path("ask.txt"), "BBBA\n\nccz\n").unwrap();
    let told = lines(&place.ok("predict run ask.txt --device cpu --json"));
    assert_eq!([&told[0]["name"], &told[1]["name"]], ["up", "down"]);
    assert_eq!(
        (&told[1]["image"], &told[1]["preparation"]),
        (&Value::from("ask.txt:3"), &Value::from("\"cc\""))
    );
    fs::write(place.path("empty.txt"), "\n").unwrap();
    place.fails("predict run empty.txt --device cpu", 3, &["nothing to classify"]);

    fs::write(
        place.path("steps.csv"),
        (0..60)
            .map(|i| {
                let (class, sign) = [("fall", -1.0), ("rise", 1.0)][i % 2];
                let start = 0.01 * i as f64;
                format!("{class},{start},{},{}\n", start + sign, start + 2.0 * sign)
            })
            .collect::<String>(),
    )
    .unwrap();
    network(&place, [1, 1, 3], [1, 2], 2);
    place.ok(
        "train --net net.toml --data steps.csv --epochs 40 --batch 8 --lr 0.01 --device cpu --out signals",
    );
    fs::write(place.path("ask.csv"), "0, 1, 2\n0.2 -0.8 -99\n").unwrap();
    let told = lines(&place.ok("predict signals ask.csv --device cpu --json"));
    assert_eq!([&told[0]["name"], &told[1]["name"]], ["rise", "fall"]);
    assert!(told[1]["preparation"].as_str().unwrap().starts_with("3 numbers, 1 of them beyond -2 to "));
    fs::write(place.path("ask.csv"), "0,1\n").unwrap();
    place.fails("predict signals ask.csv --device cpu", 3, &["ask.csv:1: 2 numbers found, expected 3"]);
    fs::write(place.path("ask.csv"), "0,1,x\n").unwrap();
    place.fails(
        "predict signals ask.csv --device cpu",
        3,
        &["ask.csv:1: \"x\" found, expected a finite number"],
    );
}

#[test]
fn a_trained_network_reads_digits() {
    let place = Place::new();
    place.ok("train --steps 300 --batch 64 --device cpu --out run");
    let test = lenet::data::mnist().unwrap().test;
    for i in [0, 1, 2, 3, 4] {
        let digit = image::GrayImage::from_raw(28, 28, test.image(i).unwrap().to_vec()).unwrap();
        digit.save(place.path(&format!("{i}.png"))).unwrap();
    }
    let out = place.ok("predict run 0.png 1.png 2.png 3.png 4.png --device cpu --json --top 2");
    let told = lines(&out);
    assert_eq!(told.len(), 5);
    for (line, label) in told.iter().zip(&test.labels) {
        assert_eq!(line["class"].as_u64(), Some(u64::from(*label)), "{line}");
        assert_eq!(line["top"].as_array().unwrap().len(), 2);
        let sum: f64 = line["probabilities"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{line}");
    }
    // Large, dark on light, from stdin, with a picture of it in the answer.
    let big = image::imageops::resize(
        &image::GrayImage::from_raw(28, 28, test.image(0).unwrap().iter().map(|p| 255 - p).collect())
            .unwrap(),
        140,
        140,
        image::imageops::FilterType::CatmullRom,
    );
    big.save(place.path("big.png")).unwrap();
    let input = fs::File::open(place.path("big.png")).unwrap();
    let output = place.command("predict run - --device cpu").stdin(input).output().unwrap();
    let out = text(&output.stdout);
    assert!(out.starts_with(&format!("stdin: {}\n", test.labels[0])) && out.contains('█'), "{out}");

    let told: Value = serde_json::from_str(&place.ok("eval run --device cpu --json")).unwrap();
    let accuracy = told["accuracy"].as_f64().unwrap();
    assert!(accuracy > 0.9 && told["loss"].as_f64().unwrap() < 0.4, "{told}");
    let confusion: Vec<Vec<u64>> = serde_json::from_value(told["confusion"].clone()).unwrap();
    let right: u64 = (0..10).map(|class| confusion[class][class]).sum();
    assert_eq!(confusion.iter().flatten().sum::<u64>(), 10_000);
    assert_eq!(right as f64 / 10_000.0, accuracy);
    for (class, figures) in told["classes"].as_array().unwrap().iter().enumerate() {
        let count: u64 = confusion[class].iter().sum();
        assert_eq!(figures["count"].as_u64(), Some(count));
        assert_eq!(figures["recall"].as_f64(), Some(confusion[class][class] as f64 / count as f64));
        let taken: u64 = confusion.iter().map(|row| row[class]).sum();
        assert_eq!(figures["precision"].as_f64(), Some(confusion[class][class] as f64 / taken as f64));
    }
    // The accuracy that the run printed is in the file.
    let (_, metadata) =
        safetensors::decode("m", &fs::read(place.path("run/model.safetensors")).unwrap()).unwrap();
    assert_eq!(metadata["accuracy"].parse::<f64>().unwrap(), accuracy);
    let out = place.ok("eval run --device cpu");
    assert!(out.contains("confusion") && out.contains(&format!("{:.2} %", 100.0 * accuracy)), "{out}");
}

/// A picture of a line of MNIST's test digits, three times as large, dark on light: its bytes as a PNM file, and the
/// columns in which each digit may have ink.
fn line_of(wanted: &[u8]) -> (Vec<u8>, Vec<[u64; 2]>) {
    let test = lenet::data::mnist().unwrap().test;
    let (height, width) = (48, 40 + 22 * wanted.len());
    let mut ink = vec![0u8; height * width];
    let mut columns = Vec::new();
    for (i, &digit) in wanted.iter().enumerate() {
        let left = 16 + 22 * i;
        let image = (0..test.len()).filter(|&image| test.labels[image] == digit).nth(5 + i).unwrap();
        for (at, &value) in test.image(image).unwrap().iter().enumerate() {
            let place = (10 + at / 28) * width + left + at % 28;
            ink[place] = ink[place].max(value);
        }
        columns.push([3 * left as u64, 3 * (left as u64 + 28)]);
    }
    let mut file = format!("P5\n{} {}\n255\n", 3 * width, 3 * height).into_bytes();
    file.extend((0..9 * height * width).map(|at| {
        let (y, x) = (at / (3 * width) / 3, at % (3 * width) / 3);
        230 - (f32::from(ink[y * width + x]) * 0.8) as u8
    }));
    (file, columns)
}

#[test]
fn a_string_is_read_out_of_a_picture_of_any_size() {
    let place = Place::new();
    place.ok("train --device cpu --net lenet5-windows --data mnist-windows --epochs 1 --steps 1000 --out run --log json");
    let (file, columns) = line_of(&[9, 4, 1, 1, 0]);
    fs::write(place.path("zip.pgm"), file).unwrap();
    let read: Value = serde_json::from_str(&place.ok("read run zip.pgm --json --device cpu")).unwrap();
    // After so short a training one mistake is allowed: another machine's roundings make another network.
    let said = read["text"].as_str().unwrap();
    assert!(lenet::read::edit_distance(said, "94110") <= 1, "{read}");
    let all = read["digits"].as_array().unwrap();
    assert_eq!(all.len(), said.len());
    for (digit, [left, right]) in all.iter().zip(columns).filter(|_| said.len() == 5) {
        let bounds: Vec<u64> = digit["box"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
        let middle = (bounds[0] + bounds[2]) / 2;
        assert!(left < middle && middle < right && bounds[1] < bounds[3], "{digit}, columns {left}–{right}");
    }
    let measured = place.ok("read run --measure 60 --length 3 --seed 4 --json --device cpu");
    let measured: Value = serde_json::from_str(&measured).unwrap();
    let figure = |name: &str| measured[name].as_f64().unwrap();
    assert!(figure("string_accuracy") > 0.7 && figure("character_error_rate") < 0.15, "{measured}");
    assert!(figure("box_overlap") > 0.8, "{measured}");
    place.ok("train --device cpu --epochs 1 --steps 1 --out digits --log json");
    place.fails("read digits zip.pgm --device cpu", 2, &["lenet5 has no class called none", "mnist-windows"]);
}

#[test]
fn pixels_get_classes() {
    let place = Place::new();
    place.ok("train --device cpu --net segment --data mnist-scenes --epochs 1 --steps 60 --batch 8 --lr 0.003 --out run --log json");
    let judged: Value = serde_json::from_str(&place.ok("eval run --json --device cpu")).unwrap();
    let overlap = &judged["intersection_over_union"];
    assert_eq!(judged["data"], "mnist-scenes");
    // Ground and ink are told apart long before the digits are.
    assert!(overlap["classes"][0].as_f64().unwrap() > 0.9, "{overlap}");
    assert_eq!(overlap["classes"].as_array().unwrap().len(), 11);
    assert!(judged["accuracy"].as_f64().unwrap() > 0.9, "{judged}");
    let total: u64 = judged["confusion"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .map(|n| n.as_u64().unwrap())
        .sum();
    assert_eq!(total, 1_000 * 64 * 64);
    let scene = lenet::data::named("mnist-scenes").unwrap().test;
    let mut file = b"P5\n64 64\n255\n".to_vec();
    file.extend_from_slice(&scene.image(0).unwrap());
    fs::write(place.path("scene.pgm"), file).unwrap();
    let seen: Value = serde_json::from_str(&place.ok("predict run scene.pgm --json --device cpu")).unwrap();
    let map = seen["classes"].as_array().unwrap();
    assert_eq!((map.len(), map[0].as_array().unwrap().len()), (64, 64));
    let right = map
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .zip(&scene.labels)
        .filter(|(class, label)| (class.as_u64() == Some(0)) == (**label == 0))
        .count();
    assert!(right > 64 * 64 * 9 / 10, "{right} pixels are told from the ground");
    place.fails("train --device cpu --net segment --data mnist-scenes --augment light", 2, &["augment"]);
    place.fails("train --device cpu --net lenet5 --data mnist-scenes", 2, &["fc3", "64×64 labels"]);
}

#[test]
fn a_state_dict_of_pytorch_is_taken_as_it_is() {
    let place = Place::new();
    place.small_data();
    let init = project("assets/golden/lenet_relu_max.init.safetensors");
    fs::copy(&init, place.path("init.safetensors")).unwrap();
    place.fails("eval init.safetensors --data data --device cpu", 2, &["init.safetensors", "--net"]);
    let out = place.ok("eval init.safetensors --net lenet5 --data data --device cpu --json");
    let loss = serde_json::from_str::<Value>(&out).unwrap()["loss"].as_f64().unwrap();
    assert!((2.2..2.4).contains(&loss), "{loss}");
}

/// What `safetensors.torch.save_file` writes of a module with batch normalisations: beside the weights an int64 each.
#[test]
fn a_state_dict_that_counts_batches_is_taken() {
    use ::safetensors::tensor::{Dtype, TensorView};

    let place = Place::new();
    place.small_data();
    let network = lenet::Network::preset("lenet5-bn").unwrap();
    let drawn = network.initial(1).unwrap();
    let bytes = |values: &Vec<f32>| values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let values: Vec<Vec<u8>> = drawn.iter().map(bytes).collect();
    let named = network.parameters().unwrap();
    let mut tensors: Vec<_> = named
        .iter()
        .zip(&values)
        .map(|(p, values)| (p.name.clone(), TensorView::new(Dtype::F32, p.shape.clone(), values).unwrap()))
        .collect();
    for norm in named.iter().filter_map(|parameter| parameter.name.strip_suffix(".running_mean")) {
        let name = format!("{norm}.num_batches_tracked");
        tensors.push((name, TensorView::new(Dtype::I64, vec![], &[7, 0, 0, 0, 0, 0, 0, 0]).unwrap()));
    }
    fs::write(place.path("w"), ::safetensors::serialize(tensors, None).unwrap()).unwrap();
    let told = place.ok("eval w --net lenet5-bn --data data --device cpu --json");
    assert!(serde_json::from_str::<Value>(&told).unwrap()["loss"].is_f64(), "{told}");
    let line = "train --init w --net lenet5-bn --data data --device cpu --steps 1 --out run";
    let output = place.run(line);
    let told = text(&output.stderr);
    assert!(output.status.success() && !told.contains("init:"), "{told}");
}

#[test]
fn classes_are_those_of_their_names() {
    let place = Place::new();
    let named = |dir: &str, label: fn(u8) -> u8, names: &str| {
        place.data(dir, label);
        fs::write(place.path(dir).join("classes.txt"), names).unwrap();
    };
    named("abc", |digit| digit % 3, "a\nb\nc\n");
    named("cab", |digit| (digit + 1) % 3, "c\na\nb\n");
    named("bcd", |digit| digit % 3, "b\nc\nd\n");
    let line = "--device cpu --epochs 4 --batch 20 --schedule constant";
    place.ok(&format!("train --data abc {line} --out run"));
    let judged = |data: &str| object(&place.ok(&format!("eval run --data {data} --device cpu --json")));
    let (own, turned) = (judged("abc"), judged("cab"));
    assert!(own["accuracy"].as_f64().unwrap() > 0.6, "{own}");
    for key in ["accuracy", "classes", "confusion"] {
        assert_eq!(own[key], turned[key], "{key}");
    }
    place.fails("eval run --data bcd --device cpu", 3, &["the class d found", "a, b, c", "b, c, d"]);
    // Two of the three, under their names.
    let test = lenet::data::mnist().unwrap().test.take(100);
    let digits: Vec<usize> = (0..100).filter(|&i| test.labels[i] % 3 != 1).collect();
    let some = test.pick(&digits);
    fs::create_dir(place.path("ac")).unwrap();
    for part in ["train", "t10k"] {
        let file = |what: &str| place.path("ac").join(format!("{part}-{what}-ubyte"));
        fs::write(file("images-idx3"), idx(&[28, 28], &some.images.all().unwrap())).unwrap();
        let labels: Vec<u8> = some.labels.iter().map(|digit| u8::from(digit % 3 == 2)).collect();
        fs::write(file("labels-idx1"), idx(&[], &labels)).unwrap();
    }
    fs::write(place.path("ac/classes.txt"), "a\nc\n").unwrap();
    let two = judged("ac");
    for (i, of_own) in [0, 2].into_iter().enumerate() {
        assert_eq!(two["confusion"][i], own["confusion"][of_own]);
        assert_eq!(two["classes"][i]["recall"], own["classes"][of_own]["recall"]);
    }
    // The rows of the last layer go where their names are.
    let output = place.run(&format!("train --data cab --init run {line} --lr 1e-12 --steps 1 --out turned"));
    let told = text(&output.stderr);
    assert!(told.contains("init: the classes c, a, b by their names"), "{told}");
    let again = object(&place.ok("eval turned --data abc --device cpu --json"));
    assert_eq!(again["confusion"][1][1], own["confusion"][0][0]);
    assert_eq!(again["accuracy"], own["accuracy"]);
    let output = place.run(&format!("train --data bcd --init run {line} --steps 1 --out other"));
    assert!(text(&output.stderr).contains("init: the classes b, c by their names; afresh d"), "{output:?}");
    // A run does not go on under other names.
    fs::write(place.path("abc/classes.txt"), "a\nb\nz\n").unwrap();
    place.fails("train --resume run --epochs 5", 3, &["not the data that the run began with"]);
}
