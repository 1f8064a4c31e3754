// The settings: the form, the address, and whether they differ from those that run.

const TEXT = new Set(["net", "activation", "pooling", "optimizer", "schedule", "augment"]);
const NULLABLE = new Set(["activation", "pooling", "weight_decay"]); // empty is what the network or optimizer has itself

export class Settings {
  constructor(form, device) {
    this.form = form;
    this.device = device;
    this.defaults = this.read();
    this.defaultDevice = device.value;
    this.slider = form.querySelector("#rate-slider");
    this.number = form.elements.learning_rate;
  }

  // `rate(x)` is called when the learning rate changes, `apply()` when the form is sent, `changed()` on any change.
  listen({ rate, apply, changed }) {
    const { form, slider, number } = this;
    slider.addEventListener("input", () => {
      number.value = Number((10 ** slider.value).toPrecision(2));
      rate(Number(number.value));
    });
    number.addEventListener("input", () => {
      if (!number.validity.valid || number.value === "") return;
      this.follow();
      rate(Number(number.value));
    });
    form.addEventListener("input", changed);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      apply();
    });
  }

  // Brings the slider to where the number is.
  follow() {
    this.slider.value = Math.log10(Math.max(1e-5, Number(this.number.value) || 0));
  }

  // What the form says, as the laboratory takes it.
  read() {
    const made = {};
    for (const element of this.form.elements) {
      const { name, value } = element;
      if (!name) continue;
      if (value === "" && NULLABLE.has(name)) made[name] = null;
      else made[name] = TEXT.has(name) ? value : Number(value);
    }
    return made;
  }

  write(values) {
    for (const [name, value] of Object.entries(values)) {
      const element = this.form.elements[name];
      if (element) element.value = value ?? "";
    }
    this.follow();
  }

  // The first field whose content cannot be taken, or undefined.
  get invalid() {
    return [...this.form.elements].find((element) => element.name && (!element.validity.valid || element.value === ""
      && !NULLABLE.has(element.name)));
  }

  // Takes what the address asks for; gives what is not understood.
  fromAddress(search) {
    const unknown = [];
    for (const [name, value] of new URLSearchParams(search)) {
      const element = name === "device" ? this.device : this.form.elements[name];
      if (!element || (!element.name && element !== this.device)) {
        unknown.push(`“${name}”`);
        continue;
      }
      const before = element.value;
      element.value = value;
      if (element.value === "" && value !== "" || !element.validity.valid) {
        element.value = before;
        unknown.push(`“${name}=${value}”`);
      }
    }
    this.follow();
    return unknown;
  }

  // The address of this set-up: what differs from the defaults.
  toAddress() {
    const parameters = new URLSearchParams();
    for (const [name, value] of Object.entries(this.read())) {
      if (value !== this.defaults[name]) parameters.set(name, value ?? "");
    }
    if (this.device.value !== this.defaultDevice) parameters.set("device", this.device.value);
    const text = parameters.toString();
    history.replaceState(null, "", text ? `?${text}` : location.pathname);
  }

  // Whether a reset would change anything but the learning rate.
  differs(running, device) {
    const { learning_rate: _, ...form } = this.read();
    return device !== this.device.value || Object.entries(form).some(([name, value]) => running[name] !== value);
  }
}
