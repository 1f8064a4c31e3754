// What each kind of layer computes: a sentence, its formula, and its gradient, in the notation of tex.js.
//
// x is the input, y the output, L the loss; δ is ∂L/∂ of what stands below it. f is the activation that is fused in.

const POOL = "i, j \\text{ in the window}";

export const KINDS = {
  conv2d: {
    title: "Convolution",
    text: "Each output channel slides one small filter per input channel over the picture and adds up what it finds. The same weights serve every place, so a stroke is recognised wherever it lies.",
    forward: ["y_{o,r,c} = b_o + \\sum_{k,i,j} w_{o,k,i,j} x_{k, r+i-P, c+j-P}"],
    backward: ["\\frac{∂L}{∂w_{o,k,i,j}} = \\sum_{n,r,c} δ_{n,o,r,c} x_{n,k,r+i-P,c+j-P}", "\\frac{∂L}{∂b_o} = \\sum_{n,r,c} δ_{n,o,r,c}", "\\frac{∂L}{∂x_{k,r,c}} = \\sum_{o,i,j} w_{o,k,i,j} δ_{o,r+P-i,c+P-j}"],
  },
  max_pool2d: {
    title: "Maximum pooling",
    text: "Keeps the largest value of each window. What is found may move a little without changing the answer. The gradient goes to the place that won.",
    forward: [`y_{c,r,s} = \\max_{${POOL}} x_{c,i,j}`],
    backward: ["\\frac{∂L}{∂x_{c,i,j}} = δ_{c,r,s} \\text{ where } x_{c,i,j} \\text{ is the window’s first maximum, else } 0"],
  },
  average_pool2d: {
    title: "Average pooling",
    text: "Keeps the mean of each window. The gradient is shared out equally.",
    forward: [`y_{c,r,s} = \\frac{1}{|K|} \\sum_{${POOL}} x_{c,i,j}`],
    backward: ["\\frac{∂L}{∂x_{c,i,j}} = \\frac{1}{|K|} δ_{c,r,s}"],
  },
  linear: {
    title: "Fully connected layer",
    text: "Each output is a weighted sum of all inputs and a bias: a matrix product for the whole batch.",
    forward: ["y_o = f (b_o + \\sum_i w_{o,i} x_i)"],
    backward: ["\\frac{∂L}{∂w_{o,i}} = \\sum_n δ_{n,o} x_{n,i}", "\\frac{∂L}{∂b_o} = \\sum_n δ_{n,o}", "\\frac{∂L}{∂x_i} = \\sum_o w_{o,i} δ_o"],
  },
  rbf: {
    title: "Radial basis units",
    text: "Each output is minus the squared distance to a code: in the network of 1998 a little picture of the digit, 7×12. The nearest code is the answer.",
    forward: ["y_o = - \\sum_i (x_i - w_{o,i})^2"],
    backward: ["\\frac{∂L}{∂x_i} = -2 \\sum_o δ_o (x_i - w_{o,i})"],
  },
  batch_norm: {
    title: "Batch normalisation",
    text: "Shifts and scales each channel so that over the batch its mean is 0 and its variance 1, then lets the network choose a scale and a shift of its own. When it predicts, it takes running averages.",
    forward: ["x̂ = \\frac{x - μ_c}{\\sqrt{σ_c^2 + ε}}", "y = γ_c x̂ + β_c"],
    backward: ["\\frac{∂L}{∂x} = \\frac{γ_c}{\\sqrt{σ_c^2 + ε}} (δ - \\frac{1}{M} \\sum δ - x̂ \\frac{1}{M} \\sum δ x̂)"],
  },
  scale: {
    title: "Coefficient and bias",
    text: "A coefficient and a bias for each channel, as the sub-sampling layers of 1998 have.",
    forward: ["y_{c,r,s} = w_c x_{c,r,s} + b_c"],
    backward: ["\\frac{∂L}{∂w_c} = \\sum_{n,r,s} δ_{n,c,r,s} x_{n,c,r,s}"],
  },
  local_response_norm: {
    title: "Local response normalisation",
    text: "Damps a value where its neighbour channels are strong too (Krizhevsky et al. 2012).",
    forward: ["y_c = \\frac{x_c}{(k + \\frac{α}{n} \\sum_{d \\text{ near } c} x_d^2)^β}"],
  },
  global_average_pool: {
    title: "Global average pooling",
    text: "The mean of each channel.",
    forward: ["y_c = \\frac{1}{H W} \\sum_{r,s} x_{c,r,s}"],
  },
  adaptive_average_pool2d: {
    title: "Adaptive average pooling",
    text: "The means of so many windows that cover the input evenly, whatever its size.",
    forward: [`y_{c,r,s} = \\frac{1}{|K|} \\sum_{${POOL}} x_{c,i,j}`],
  },
  dropout: {
    title: "Dropout",
    text: "In training, leaves each feature out with probability p and scales the others up, so that no feature can rely on another. It does nothing when the network predicts.",
    forward: ["y_i = \\frac{m_i}{1 - p} x_i", "m_i = 0 \\text{ with probability } p\\text{, else } 1"],
    backward: ["\\frac{∂L}{∂x_i} = \\frac{m_i}{1 - p} δ_i"],
  },
  flatten: {
    title: "Flatten",
    text: "From here on the picture is a list of numbers. Nothing is computed: they lie in this order already.",
    forward: ["y_{(c H + r) W + s} = x_{c,r,s}"],
  },
  residual: {
    title: "Residual connection",
    text: "Adds the input to what the layers inside make of it, so that gradients have a short way back (He et al. 2016).",
    forward: ["y = F(x) + x"],
  },
  branches: { title: "Branches", text: "Several ways from one input; their channels are put side by side (Szegedy et al. 2015)." },
  upsample: { title: "Upsampling", text: "Repeats each pixel in both directions." },

  relu: {
    title: "ReLU",
    text: "Lets the positive through. It bends the straight line: without a bend, any number of layers would be one.",
    forward: ["f(x) = \\max (x, 0)"],
    backward: ["f′(x) = 1 \\text{ for } x > 0\\text{, else } 0"],
  },
  leaky_relu: { title: "Leaky ReLU", text: "A ReLU that keeps a little of the negative.", forward: ["f(x) = \\max (x, 0.01 x)"] },
  sigmoid: { title: "Sigmoid", text: "Squeezes any number between 0 and 1.", forward: ["f(x) = \\frac{1}{1 + e^{-x}}"], backward: ["f′ = f (1 - f)"] },
  tanh: { title: "Hyperbolic tangent", text: "Squeezes any number between −1 and 1.", forward: ["f(x) = tanh x"], backward: ["f′ = 1 - f^2"] },
  scaled_tanh: { title: "Scaled tanh", text: "LeCun’s activation of 1998: f(±1) = ±1, with the strongest bend there.", forward: ["f(x) = 1.7159 tanh (\\frac{2}{3} x)"] },
  gelu: { title: "GELU", text: "x times the probability that a normal number is smaller.", forward: ["f(x) = \\frac{x}{2} (1 + erf \\frac{x}{\\sqrt{2}})"] },
  gelu_tanh: { title: "GELU, by tanh", text: "An approximation of GELU.", forward: ["f(x) = \\frac{x}{2} (1 + tanh (0.798 (x + 0.0447 x^3)))"] },
  silu: { title: "SiLU", text: "x times its sigmoid.", forward: ["f(x) = \\frac{x}{1 + e^{-x}}"] },
  elu: { title: "ELU", text: "Straight above zero, an exponential below.", forward: ["f(x) = x \\text{ for } x > 0\\text{, else } e^x - 1"] },
  softplus: { title: "Softplus", text: "A ReLU with a rounded corner.", forward: ["f(x) = log (1 + e^x)"], backward: ["f′(x) = \\frac{1}{1 + e^{-x}}"] },
  hard_swish: { title: "Hard swish", text: "A SiLU made of straight lines and a parabola.", forward: ["f(x) = x \\frac{clamp(x + 3, 0, 6)}{6}"] },

  loss: {
    title: "Softmax and cross-entropy",
    text: "Turns ten numbers into probabilities, and asks how surprised the network is by the right answer. Both and the gradient are one launch: what comes back is simply probability minus truth.",
    forward: ["p_k = \\frac{e^{z_k}}{\\sum_j e^{z_j}}", "L = - \\sum_k q_k log p_k"],
    backward: ["\\frac{∂L}{∂z_k} = \\frac{1}{N} (p_k - q_k)"],
  },

  sgd: { title: "Gradient descent", text: "Every weight goes a little way against its gradient g.", forward: ["w ← w - η g"] },
  momentum: { title: "Gradient descent with momentum", text: "The gradients add up to a velocity.", forward: ["b ← μ b + g", "w ← w - η b"] },
  nesterov: { title: "Nesterov’s momentum", text: "Momentum that looks one step ahead.", forward: ["b ← μ b + g", "w ← w - η (g + μ b)"] },
  rmsprop: { title: "RMSprop", text: "Divides each gradient by its usual size.", forward: ["v ← α v + (1 - α) g^2", "w ← w - η \\frac{g}{\\sqrt{v} + ε}"] },
  adam: {
    title: "Adam",
    text: "Momentum, divided by the gradient’s usual size, both corrected for having begun at zero (Kingma and Ba 2015). It also adds up the partial gradients: one launch updates every weight.",
    forward: ["m ← β_1 m + (1 - β_1) g", "v ← β_2 v + (1 - β_2) g^2", "w ← w - η \\frac{m / (1 - β_1^t)}{\\sqrt{v / (1 - β_2^t)} + ε}"],
  },
};
KINDS.conv1d = KINDS.conv2d;
KINDS.max_pool1d = KINDS.max_pool2d;
KINDS.average_pool1d = KINDS.average_pool2d;
KINDS.adamw = {
  title: "AdamW",
  text: "Adam, with weight decay beside the gradient and not inside it (Loshchilov and Hutter 2019).",
  forward: ["w ← (1 - η λ) w", ...KINDS.adam.forward],
};
